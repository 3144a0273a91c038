"""How jobs run: leases, attempts, limits of one job."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class Running(BaseSettings):
    """The protocol between the queue and its workers, and what one job may take."""

    lease_s: float = Field(default=30, gt=0, description="A running job whose worker is silent for so long is requeued.")
    heartbeat_s: float = Field(default=2, gt=0, description="How often a worker renews its lease and looks for a cancel.")
    reaper_tick_s: float = Field(default=5, gt=0, description="How often workers look for lost jobs and wake sleepers.")
    republish_after_s: float = Field(default=10, gt=0, description="A queued job is woken again after so long, then 2x, 4x.")
    kill_grace_s: float = Field(default=5, gt=0, description="Time between TERM and KILL of a job's process.")
    max_attempts: int = Field(default=3, ge=1, description="Crashes, or lost leases, after which a job has failed.")
    crash_pause_s: float = Field(default=5, ge=0, description="A job that crashed is tried again after so long, then 2x, 4x.")
    job_timeout_s: float = Field(default=6 * 3600, gt=0, description="Longest run of one attempt.")
    job_memory_bytes: int | None = Field(
        default=None, ge=2**28, description="Memory that a job's process may allocate on the host; empty: what there is."
    )
    min_free_bytes: int = Field(
        default=2**28,
        ge=0,
        description="A worker takes no job while the disk of its scratch folder has less room, and the API no upload that "
        "would leave less.",
    )
    storage_wait_s: float = Field(
        default=600, ge=0, description="A finished result waits so long for an artifact store that is full or out of reach."
    )

    bundle_max_bytes: int = Field(
        default=512 * 2**30, ge=2**20, description="Largest bundle of a job, files with holes counted as if they had none."
    )

    @property
    def worker_gone_s(self) -> float:
        """A worker that was not seen for so long is not counted."""
        return max(self.lease_s, 3 * self.reaper_tick_s)
