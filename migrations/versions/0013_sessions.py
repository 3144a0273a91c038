"""Sessions of browsers that end on the server, and by which of the server's secrets a key is known

Revision: 0013
Before it: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("secret_id", sa.String(length=16), nullable=True))
    op.create_table(
        "key_sessions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_key_sessions_key_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_key_sessions")),
    )
    op.create_index(op.f("ix_key_sessions_key_id_created_at"), "key_sessions", ["key_id", "created_at"], unique=False)
    op.create_index(op.f("ix_key_sessions_expires_at"), "key_sessions", ["expires_at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_key_sessions_expires_at"), table_name="key_sessions")
    op.drop_index(op.f("ix_key_sessions_key_id_created_at"), table_name="key_sessions")
    op.drop_table("key_sessions")
    op.drop_column("api_keys", "secret_id")
