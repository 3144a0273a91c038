"""Where the service keeps what it keeps."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app import brokers, stores
from app.settings.parts import split_paths

_CONNECTIONS_A_PROCESS = 30  # where nothing else is said
_DATABASES = ("sqlite+pysqlite", "postgresql+psycopg")
_BROKERS = (brokers.PLAIN, brokers.TLS)


class Places(BaseSettings):
    """Database, broker, stores and folders."""

    data_dir: Path = Field(default=Path("coppice-data"), description="Folder of the local profile's files.")
    database_url: str = Field(
        default="", description="SQLAlchemy URL, e.g. postgresql+psycopg://user:password@host/db; empty: SQLite in data_dir."
    )
    database_connections: int | None = Field(
        default=None,
        ge=2,
        description="Connections that all processes of the service may have to PostgreSQL together: each takes its part, by "
        "COPPICE_DATABASE_PROCESSES, and waits beyond that. Empty: 30 for each process.",
    )
    database_processes: int = Field(
        default=1, ge=1, description="So many processes, APIs and workers, share these connections when all that may run do."
    )
    database_pooler: bool = Field(
        default=False,
        description="The database's URL leads to PgBouncer in transaction mode: nothing is kept on a connection from one "
        "transaction to the next. See the guide to scaling out for what the database's user then needs.",
    )
    broker_url: str = Field(
        default="",
        description="e.g. rediss://user:password@host:6379/0?ssl_ca_certs=/run/redis-ca.crt, or redis:// without TLS; empty: a "
        "folder in data_dir. With rediss the certificate is verified, without ssl_ca_certs by the system's authorities.",
    )
    artifacts_dir: Path | None = Field(default=None, description="Folder of the artifact store; empty: in data_dir.")
    artifacts_url: str = Field(default="", description=stores.described())
    uploads_dir: Path | None = Field(
        default=None,
        description="Folder of uploaded models and data sets, the same for API and workers. Empty: beside the artifacts; or, "
        "with COPPICE_ARTIFACTS_URL, in the object store, of which each host fetches what it needs into a cache in data_dir.",
    )
    uploads_cache_bytes: int = Field(
        default=64 * 2**30, ge=2**20, description="Largest cache of uploads of a host, where they are in an object store."
    )
    scratch_dir: Path | None = Field(default=None, description="Folder for running jobs' files; empty: in data_dir.")
    statistics_bytes: int = Field(
        default=2 * 2**30,
        ge=0,
        description="Bytes that each worker host keeps of the dense models of one tenant's jobs, in a folder of data_dir: "
        "scores, hidden states and answers, which a second target of the same model and data then need not gather again. "
        "What was least recently used goes first. 0: nothing.",
    )
    statistics_shared: bool = Field(
        default=False,
        description="Whether a tenant's job may use what another's has kept, for the same model and the same rows.",
    )
    allowed_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description=f"Folders under which jobs may name models and data sets by path, separated by {os.pathsep!r}. "
        "Empty: Hub ids only. The service's own folders stay closed, unless one is named here.",
    )

    _split_roots = field_validator("allowed_roots", mode="before")(split_paths)

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        scheme, found, rest = value.partition("://")
        if not value:
            return value
        if not found or not rest.strip("/"):
            raise ValueError("must be a URL such as postgresql+psycopg://user:password@host/name")
        # Hosting providers hand out these schemes, for which SQLAlchemy would look for another driver.
        scheme = {"postgres": _DATABASES[1], "postgresql": _DATABASES[1], "sqlite": _DATABASES[0]}.get(scheme, scheme)
        if scheme not in _DATABASES:
            raise ValueError(f"must begin with {' or '.join(f'{known}://' for known in _DATABASES)}")
        if scheme == _DATABASES[1] and find_spec("psycopg") is None:
            raise ValueError("PostgreSQL needs a driver: pip install 'coppice-server[postgres]'")
        return f"{scheme}://{rest}"

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: str) -> str:
        scheme, found, rest = value.partition("://")
        if value and (scheme not in _BROKERS or not found or not rest.strip("/")):
            raise ValueError("must be a URL such as redis://host:6379/0, or empty for a folder in the data folder")
        if value and find_spec("redis") is None:
            raise ValueError("Redis needs a client: pip install 'coppice-server[redis]'")
        return brokers.with_tls(value) if value else value

    @field_validator("artifacts_url")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if value:
            stores.kind_of(value)
        return value

    @property
    def resolved_database_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite+pysqlite:///{self.data_dir.resolve() / 'coppice.db'}"

    @property
    def connections_in_all(self) -> int:
        """The connections that the processes of the service may have together, as far as the settings say."""
        return self.database_connections or _CONNECTIONS_A_PROCESS * self.database_processes

    @property
    def connections_a_process(self) -> int | None:
        """The connections that one process may have to PostgreSQL; None: the default."""
        total = self.database_connections
        return None if total is None else total // self.database_processes

    @property
    def resolved_artifacts_dir(self) -> Path:
        """The artifact folder to use."""
        return self.artifacts_dir or self.data_dir / "artifacts"

    @property
    def resolved_uploads_dir(self) -> Path:
        """The folder of uploads to use."""
        return (self.uploads_dir or self.resolved_artifacts_dir / "uploads").resolve()

    @property
    def keeps_uploads_in_store(self) -> bool:
        """Whether uploads are in the object store, and the folder is a cache of them."""
        return bool(self.artifacts_url) and self.uploads_dir is None

    @property
    def resolved_scratch_dir(self) -> Path:
        """The scratch folder to use."""
        return self.scratch_dir or self.data_dir / "scratch"

    @property
    def closed_folders(self) -> tuple[Path, ...]:
        """The folders in which the service keeps what is its tenants'. No path of a client leads there."""
        return (self.resolved_uploads_dir, self.resolved_artifacts_dir.resolve(), self.resolved_scratch_dir.resolve())
