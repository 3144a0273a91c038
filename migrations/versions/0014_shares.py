"""Turns among tenants, queues by what jobs need, and what workers serve

Revision: 0014
Before it: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_OLD_ORDER = ("ix_jobs_claim_order", "jobs", ["status", sa.text("priority DESC"), "created_at", "id"])
_ORDER = ("ix_jobs_turns", "jobs", ["status", "rank", "owner", "queue", sa.text("priority DESC"), "created_at", "id"])


def upgrade() -> None:
    # The defaults are what rows have that code of before writes.
    op.add_column("jobs", sa.Column("rank", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("queue", sa.String(length=200), server_default="any", nullable=False))
    op.add_column("jobs", sa.Column("gpu_bytes", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("serves", sa.JSON(), nullable=True))
    op.drop_index(_OLD_ORDER[0], table_name="jobs")
    op.create_index(*_ORDER)
    op.create_table(
        "tenants",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_tenants")),
    )
    op.create_table(
        "turns",
        sa.Column("pool", sa.String(length=200), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("start", sa.Double(), nullable=False),
        sa.Column("taken_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("pool", "rank", "owner", name=op.f("pk_turns")),
    )
    op.create_table(
        "queue_limits",
        sa.Column("queue", sa.String(length=200), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_queue_limits")),
    )


def downgrade() -> None:
    for table in ("queue_limits", "turns", "tenants"):
        op.drop_table(table)
    op.drop_index(_ORDER[0], table_name="jobs")
    op.create_index(*_OLD_ORDER)
    op.drop_column("workers", "serves")
    for column in ("gpu_bytes", "queue", "rank"):
        op.drop_column("jobs", column)
