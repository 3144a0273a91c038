"""Settings, from the environment (``COPPICE_*``). The defaults are the local profile: SQLite, a folder broker, local files.

Every process of the service reads the same settings; the field descriptions below are their documentation.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """What an operator can set."""

    model_config = SettingsConfigDict(env_prefix="COPPICE_", frozen=True, extra="ignore")

    data_dir: Path = Field(default=Path("coppice-data"), description="Folder of the local profile's files.")
    database_url: str = Field(
        default="", description="SQLAlchemy URL, e.g. postgresql+psycopg://user:password@host/db; empty: SQLite in data_dir."
    )
    broker_url: str = Field(default="", description="e.g. redis://host:6379/0; empty: a folder in data_dir.")
    artifacts_dir: Path | None = Field(default=None, description="Folder of the artifact store; empty: in data_dir.")
    scratch_dir: Path | None = Field(default=None, description="Folder for running jobs' files; empty: in data_dir.")
    allowed_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description=f"Folders under which jobs may name models and data sets by path, separated by {os.pathsep!r}. "
        "Empty: Hub ids only.",
    )

    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that the API listens on; 0 picks a free one.")
    max_body_bytes: int = Field(default=2**20, ge=1024, description="Largest JSON request body.")

    lease_s: float = Field(default=30, gt=0, description="A running job whose worker is silent for so long is requeued.")
    heartbeat_s: float = Field(default=2, gt=0, description="How often a worker renews its lease and looks for a cancel.")
    reaper_tick_s: float = Field(default=5, gt=0, description="How often workers look for lost jobs and wake sleepers.")
    republish_after_s: float = Field(default=10, gt=0, description="A queued job is woken again after so long, then 2x, 4x.")
    kill_grace_s: float = Field(default=5, gt=0, description="Time between TERM and KILL of a job's process.")
    max_attempts: int = Field(default=3, ge=1, description="Crashes, or lost leases, after which a job has failed.")
    job_timeout_s: float = Field(default=6 * 3600, gt=0, description="Longest run of one attempt.")

    device: str = Field(default="", description="Torch device of the worker, e.g. cpu or cuda:0; empty: a GPU if there is one.")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of a job; empty: torch's own default.")
    log_json: bool = Field(default=True, description="Logs as JSON lines; false: for people.")

    @field_validator("allowed_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @property
    def resolved_database_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite+pysqlite:///{self.data_dir.resolve() / 'coppice.db'}"

    @property
    def resolved_artifacts_dir(self) -> Path:
        """The artifact folder to use."""
        return self.artifacts_dir or self.data_dir / "artifacts"

    @property
    def resolved_scratch_dir(self) -> Path:
        """The scratch folder to use."""
        return self.scratch_dir or self.data_dir / "scratch"


@cache
def get_settings() -> Settings:
    """Read the environment, once a process."""
    return Settings()
