"""Searches along indexes: model and method of jobs, a table of their metadata; and notifications of changes on PostgreSQL

Revision: 0016
Before it: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_FILL_SQLITE = (
    """
    UPDATE jobs SET method = json_extract(spec, '$.method.name'), model = json_extract(spec, '$.model')
    WHERE length(json_extract(spec, '$.model')) <= 255
    """,
    """
    INSERT INTO job_labels (job_id, "key", value, owner, created_at)
    SELECT jobs.id, own."key", CAST(own.value AS TEXT), jobs.owner, jobs.created_at FROM jobs, json_each(jobs.metadata) AS own
    """,
)
_FILL_POSTGRESQL = (
    """
    UPDATE jobs SET method = spec #>> '{method,name}', model = spec ->> 'model' WHERE length(spec ->> 'model') <= 255
    """,
    """
    INSERT INTO job_labels (job_id, "key", value, owner, created_at)
    SELECT jobs.id, own."key", own.value, jobs.owner, jobs.created_at FROM jobs, json_each_text(jobs.metadata) AS own
    """,
)
# Who listens: app/changes.py. A trigger, so that no statement that changes a job can forget it.
_NOTIFY = (
    """
    CREATE FUNCTION coppice_job_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('coppice_jobs', OLD.id);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER coppice_job_changed AFTER UPDATE OF version OR DELETE ON jobs
    FOR EACH ROW EXECUTE FUNCTION coppice_job_changed()
    """,
)


def upgrade() -> None:
    # Null in rows of code before this, whose spec is looked into.
    op.add_column("jobs", sa.Column("model", sa.String(length=255), nullable=True))
    op.add_column("jobs", sa.Column("method", sa.String(length=64), nullable=True))
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_labels_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "key", name=op.f("pk_job_labels")),
    )
    for statement in _FILL_SQLITE if op.get_context().dialect.name == "sqlite" else _FILL_POSTGRESQL:
        op.execute(statement)
    op.create_index("ix_job_labels_search", "job_labels", ["owner", "key", "value", "created_at", "job_id"])
    op.create_index(op.f("ix_jobs_owner_model_created_at_id"), "jobs", ["owner", "model", "created_at", "id"])
    op.create_index(op.f("ix_jobs_owner_status_created_at_id"), "jobs", ["owner", "status", "created_at", "id"])
    op.create_index("ix_jobs_list", "jobs", ["owner", "created_at", "id", "model", "method", "status"])
    op.drop_index(op.f("ix_jobs_owner_status"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_owner_created_at_id"), table_name="jobs")
    if op.get_context().dialect.name == "postgresql":
        for statement in _NOTIFY:
            op.execute(statement)


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP TRIGGER coppice_job_changed ON jobs")
        op.execute("DROP FUNCTION coppice_job_changed()")
    op.create_index(op.f("ix_jobs_owner_created_at_id"), "jobs", ["owner", "created_at", "id"])
    op.create_index(op.f("ix_jobs_owner_status"), "jobs", ["owner", "status"])
    op.drop_index("ix_jobs_list", table_name="jobs")
    op.drop_index(op.f("ix_jobs_owner_status_created_at_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_owner_model_created_at_id"), table_name="jobs")
    op.drop_table("job_labels")
    op.drop_column("jobs", "method")
    op.drop_column("jobs", "model")
