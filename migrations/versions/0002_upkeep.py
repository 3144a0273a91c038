"""Expiry of artifacts, who works here, and indexes for claims and quotas

Revision: 0002
Before it: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("expires_at", sa.Double(), nullable=True))
    op.create_index("ix_jobs_expires_at", "jobs", ["expires_at"])
    op.create_index("ix_jobs_owner_status", "jobs", ["owner", "status"])
    op.create_index("ix_jobs_claim_order", "jobs", ["status", sa.text("priority DESC"), "created_at", "id"])
    op.drop_index("ix_jobs_status_priority_created_at", "jobs")
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )


def downgrade() -> None:
    op.drop_table("workers")
    op.drop_index("ix_idempotency_keys_created_at", "idempotency_keys")
    op.create_index("ix_jobs_status_priority_created_at", "jobs", ["status", "priority", "created_at"])
    op.drop_index("ix_jobs_claim_order", "jobs")
    op.drop_index("ix_jobs_owner_status", "jobs")
    op.drop_index("ix_jobs_expires_at", "jobs")
    op.drop_column("jobs", "expires_at")
