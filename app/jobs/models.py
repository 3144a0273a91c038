"""Tables of jobs. Times are seconds since the epoch by the database's clock."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata
from app.jobs.states import JobStatus

LONGEST_INDEXED = 255  # letters of a model's name: PostgreSQL's indexes have a limit

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
    # Smaller goes first, before any turn among tenants: minus the priority where the key may go before other tenants, else 0.
    sa.Column("rank", sa.Integer, nullable=False, server_default="0"),
    sa.Column("queue", sa.String(200), nullable=False, server_default="any"),  # by what it needs (app.jobs.needs)
    sa.Column("gpu_bytes", sa.BigInteger),  # memory of a GPU that it needs
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("name", sa.String(200)),  # what people call it; null: nothing
    sa.Column("tags", sa.JSON(none_as_null=True)),  # null: none
    # Of the spec, for searches (app.jobs.search); null: the spec is to be looked into.
    sa.Column("model", sa.String(LONGEST_INDEXED)),
    sa.Column("method", sa.String(64)),
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
    # The calibration whose pieces the job starts from, by its id; it may be gone by now.
    sa.Column("calibration", sa.String(64)),
    sa.CheckConstraint(f"status IN ({_STATUSES})", name="status"),
    sa.Index(None, "owner", "client_id", unique=True),
    sa.Index(None, "owner", "status", "created_at", "id"),
    sa.Index(None, "expires_at"),
    sa.Index(None, "owner", "model", "created_at", "id"),
    sa.Index(None, "owner", "name", "created_at", "id"),
    # With all that lists and searches ask of a job, so that they read rows only of what they have found.
    sa.Index("ix_jobs_list", "owner", "created_at", "id", "model", "method", "status", "name"),
    sa.Index(None, "lease_until"),
    sa.Index(None, "finished_at"),
    sa.Index(None, "calibration"),
)

# Calibrations: jobs that gather what is known of a dense model. Their pieces are artifacts.
calibrations = sa.Table(
    "calibrations",
    metadata,
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),  # the job's
    sa.Column("used_at", sa.Double),  # when a worker last fetched its pieces, or they were made; null: there are none yet
    sa.Column("found", sa.JSON(none_as_null=True)),  # a StatisticsReport
    sa.Index("ix_calibrations_list", "owner", "created_at", "job_id"),
)

# A job's metadata and its tags (app.jobs.naming), for searches; metadata is written once, as it is.
job_labels = sa.Table(
    "job_labels",
    metadata,
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(512), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),  # the job's
    sa.Index("ix_job_labels_search", "owner", "key", "value", "created_at", "job_id"),
)

# What waits, by whose turn it can be: a claim reads the first row of each tenant's queues, however long they are.
sa.Index(
    "ix_jobs_turns",
    *(jobs.c.status, jobs.c.rank, jobs.c.owner, jobs.c.queue),
    *(jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id),
)

# Tenants for whom the operator has set something.
tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("share", sa.Double, nullable=False),  # of the turns, beside those of other tenants
    sa.Column("max_running", sa.Integer),  # jobs at once; null: as the settings say
)

# The last turn of each tenant: of one kind of worker (app.jobs.needs), at one rank.
turns = sa.Table(
    "turns",
    metadata,
    sa.Column("pool", sa.String(200), primary_key=True),
    sa.Column("rank", sa.Integer, primary_key=True),
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("start", sa.Double, nullable=False),  # on the round's own scale (app.jobs.fairness)
    sa.Column("taken_at", sa.Double, nullable=False),
)

queue_limits = sa.Table(
    "queue_limits",
    metadata,
    sa.Column("queue", sa.String(200), primary_key=True),
    sa.Column("max_running", sa.Integer, nullable=False),
)

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

# What attempts have printed (app.jobs.outputs).
job_outputs = sa.Table(
    "job_outputs",
    metadata,
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("written_at", sa.Double, nullable=False),
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
    sa.Column("serves", sa.JSON(none_as_null=True)),  # an app.jobs.needs.Abilities; null: written by an earlier version
)
