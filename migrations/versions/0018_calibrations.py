"""Calibrations, and which of them a job starts from

Revision: 0018
Before it: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("calibration", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_jobs_calibration"), "jobs", ["calibration"], unique=False)
    op.create_table(
        "calibrations",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("found", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_calibrations_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_calibrations")),
    )
    op.create_index("ix_calibrations_list", "calibrations", ["owner", "created_at", "job_id"], unique=False)


def downgrade() -> None:
    op.drop_table("calibrations")
    op.drop_index(op.f("ix_jobs_calibration"), table_name="jobs")
    op.drop_column("jobs", "calibration")
