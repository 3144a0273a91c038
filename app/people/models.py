"""Tables of people's sessions and of sign-ins under way. Of a cookie only an HMAC is kept, and no token of the provider's."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata

person_sessions = sa.Table(
    "person_sessions",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("person_id", sa.String(64), sa.ForeignKey("people.id", ondelete="CASCADE"), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),  # the one that the pages show now
    sa.Column("groups", sa.JSON, nullable=False),  # those of the person that have a role, as told at the sign-in
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Index(None, "person_id", "created_at"),
    sa.Index(None, "expires_at"),
)

sign_ins = sa.Table(
    "sign_ins",
    metadata,
    sa.Column("state", sa.String(64), primary_key=True),  # an HMAC of what the provider gives back
    sa.Column("browser", sa.String(64), nullable=False),  # an HMAC of the cookie of the browser that began it
    sa.Column("nonce", sa.String(64), nullable=False),
    sa.Column("verifier", sa.String(128), nullable=False),  # of PKCE; worth nothing without the code
    sa.Column("wanted", sa.String(2000), nullable=False),  # the page to go to
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Index(None, "expires_at"),
)
