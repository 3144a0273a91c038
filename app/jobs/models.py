"""Tables of jobs. Times are seconds since the epoch by the database's clock."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata
from app.jobs.states import JobStatus

_STATUSES = ", ".join(f"'{status}'" for status in JobStatus)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),  # "" without authentication
    sa.Column("client_id", sa.String(64)),  # id that a client chose with PUT; the API then knows the job by it
    sa.Column("body_sha256", sa.String(64)),  # digest of a PUT's body, by app.jobs.digests
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # grows with every change: the ETag
    # The fence decides who may write: a claim raises it, and a statement with an older fence affects no row.
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(128)),
    sa.Column("lease_until", sa.Double),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    # Number of attempts. Crashes are caused by the job itself, lost leases by the machine; each has its own cap.
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("losses", sa.Integer, nullable=False),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("published_at", sa.Double),
    sa.Column("publish_count", sa.Integer, nullable=False),
    sa.Column("progress", sa.JSON(none_as_null=True)),
    sa.Column("progress_at", sa.Double),  # when the progress was written
    sa.Column("report", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("traceparent", sa.String(64)),  # of the submitting request, where it was traced
    sa.Column("expires_at", sa.Double),  # when the files expire; null: never
    # Limits of the job's own, narrower than the operator's; null: the operator's.
    sa.Column("max_attempts", sa.Integer),
    sa.Column("timeout_s", sa.Double),
    sa.CheckConstraint(f"status IN ({_STATUSES})", name="status"),
    sa.Index(None, "owner", "client_id", unique=True),
    sa.Index(None, "owner", "status"),
    sa.Index(None, "expires_at"),
    sa.Index(None, "owner", "created_at", "id"),
    sa.Index(None, "lease_until"),
    sa.Index(None, "finished_at"),
)

# The order in which jobs are claimed, so that a claim reads one row however long the queue is.
sa.Index("ix_jobs_claim_order", jobs.c.status, jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id)

job_events = sa.Table(
    "job_events",
    metadata,
    # SQLite numbers rows by itself only in a column declared INTEGER.
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index(None, "job_id", "id"),
    sqlite_autoincrement=True,
)

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("path", sa.String(512), primary_key=True),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("body_sha256", sa.String(64), nullable=False),
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index(None, "created_at"),
    sa.Index(None, "job_id"),  # a deleted job takes its keys along
)

# Workers and when they were last seen, as every worker's reaper writes it.
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
)
