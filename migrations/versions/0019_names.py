"""Names and tags of jobs, and what their processes printed

Revision: 0019
Before it: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_OF_LISTS = ["owner", "created_at", "id", "model", "method", "status"]


def upgrade() -> None:
    # Null in rows of code before this, whose jobs have neither.
    op.add_column("jobs", sa.Column("name", sa.String(length=200), nullable=True))
    op.add_column("jobs", sa.Column("tags", sa.JSON(), nullable=True))
    op.create_index(op.f("ix_jobs_owner_name_created_at_id"), "jobs", ["owner", "name", "created_at", "id"])
    op.drop_index("ix_jobs_list", table_name="jobs")
    op.create_index("ix_jobs_list", "jobs", [*_OF_LISTS, "name"])
    op.create_table(
        "job_outputs",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("written_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_outputs_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_job_outputs")),
    )


def downgrade() -> None:
    op.drop_table("job_outputs")
    op.execute("DELETE FROM job_labels WHERE substr(\"key\", 1, 4) = 'tag:'")
    op.drop_index("ix_jobs_list", table_name="jobs")
    op.create_index("ix_jobs_list", "jobs", _OF_LISTS)
    op.drop_index(op.f("ix_jobs_owner_name_created_at_id"), table_name="jobs")
    op.drop_column("jobs", "tags")
    op.drop_column("jobs", "name")
