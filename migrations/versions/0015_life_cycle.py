"""The life cycle: deletions of tenants, limits of a job's own, the last use of uploads, and indexes for deletions

Revision: 0015
Before it: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("webhook_deliveries", sa.Column("job_id", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_webhook_deliveries_job_id"), "webhook_deliveries", ["job_id"], unique=False)
    op.create_index(op.f("ix_idempotency_keys_job_id"), "idempotency_keys", ["job_id"], unique=False)
    op.create_index(op.f("ix_jobs_finished_at"), "jobs", ["finished_at"], unique=False)
    op.add_column("jobs", sa.Column("max_attempts", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("timeout_s", sa.Double(), nullable=True))
    op.add_column("uploads", sa.Column("used_at", sa.Double(), nullable=True))
    controls = op.create_table(
        "queue_controls",
        sa.Column("queue", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("since", sa.Double(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'paused', 'draining')", name=op.f("ck_queue_controls_state")),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_queue_controls")),
    )
    op.bulk_insert(controls, [{"queue": "", "state": "open", "since": None}])
    op.create_table(
        "tenant_deletions",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.Column("with_audit", sa.Boolean(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_tenant_deletions")),
    )


def downgrade() -> None:
    op.drop_table("tenant_deletions")
    op.drop_table("queue_controls")
    op.drop_column("uploads", "used_at")
    op.drop_column("jobs", "timeout_s")
    op.drop_column("jobs", "max_attempts")
    op.drop_index(op.f("ix_jobs_finished_at"), table_name="jobs")
    op.drop_index(op.f("ix_idempotency_keys_job_id"), table_name="idempotency_keys")
    op.drop_index(op.f("ix_webhook_deliveries_job_id"), table_name="webhook_deliveries")
    op.drop_column("webhook_deliveries", "job_id")
