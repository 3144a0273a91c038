"""Tables of API keys and of browsers' sessions. Of a key or a cookie itself only an HMAC is kept."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),  # the tenant, who owns what its keys create
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("revoked_at", sa.Double),
    sa.Column("secret_id", sa.String(16)),  # of the secret that the digest is made with; null: nobody noted it
    sa.UniqueConstraint("digest"),
    sa.Index(None, "owner", "created_at"),
)

key_sessions = sa.Table(
    "key_sessions",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("key_id", sa.String(64), sa.ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Index(None, "key_id", "created_at"),
    sa.Index(None, "expires_at"),
)
