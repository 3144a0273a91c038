"""How much a tenant may have, and how long what ended is kept."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class Keeping(BaseSettings):
    """Quotas and retention."""

    max_queued_jobs: int = Field(default=10_000, ge=1, description="Jobs of one owner that may wait in the queue.")
    max_running_jobs: int | None = Field(default=None, ge=1, description="Jobs of one owner that may run at once; empty: any.")
    artifacts_keep_s: float | None = Field(
        default=None, gt=0, description="Files of a finished job are deleted after so long; empty: never."
    )
    jobs_keep_s: float | None = Field(
        default=None,
        gt=0,
        description="A job that ended so long ago is deleted with its report, events and files; empty: never.",
    )
    events_keep_s: float | None = Field(
        default=None, gt=0, description="Events so old are deleted where their job has ended; empty: they live as long as it."
    )
    audit_keep_s: float | None = Field(
        default=None, gt=0, description="Lines of the audit log so old are deleted; empty: never. Export them before."
    )
    uploads_keep_s: float | None = Field(
        default=None,
        ge=3600,
        description="Uploads that were neither sent nor named by a job for so long are deleted, unless an unfinished job needs "
        "them; empty: never.",
    )
    calibrations_bytes: int | None = Field(
        default=None,
        gt=0,
        description="Bytes that the pieces of all calibrations of one tenant may have in the artifact store; those least "
        "recently used make room. Empty: any number.",
    )
    idempotency_keep_s: float = Field(default=48 * 3600, gt=0, description="Idempotency keys are remembered for so long.")
