"""Settings, from the environment (``COPPICE_*``). The defaults are the local profile: SQLite, a folder broker, local files.

Every process of the service reads the same settings; the field descriptions below are their documentation.
"""

from __future__ import annotations

import ipaddress
import os
import re
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import brokers, stores
from pruning_core.spec.messages import message_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DATABASES = ("sqlite+pysqlite", "postgresql+psycopg")
_BROKERS = (brokers.PLAIN, brokers.TLS)
_SHORTEST_SECRET = 32
PREFIX = "COPPICE_"
TAG = r"^[a-z0-9][a-z0-9_.\-]{0,23}$"  # of a worker


class Sandbox(StrEnum):
    """How jobs' processes are kept from what is not theirs."""

    AUTO = "auto"
    REQUIRED = "required"
    PREFERRED = "preferred"
    OFF = "off"


class SettingsInvalid(Exception):
    """A variable of the environment is invalid; the message names it and says what would be right."""


class DataFolderUnusable(SettingsInvalid):
    """The local profile's files cannot be kept where the environment says."""

    def __init__(self, error: OSError) -> None:
        where = f" {error.filename}" if error.filename else ""
        super().__init__(f"COPPICE_DATA_DIR: the folder{where} cannot be used ({error.strerror})")


class Settings(BaseSettings):
    """The settings of the service, which its operator may change."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    data_dir: Path = Field(default=Path("coppice-data"), description="Folder of the local profile's files.")
    database_url: str = Field(
        default="", description="SQLAlchemy URL, e.g. postgresql+psycopg://user:password@host/db; empty: SQLite in data_dir."
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
        description="Folder of uploaded models and data sets, the same for API and workers; empty: beside the artifacts.",
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

    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that the API listens on; 0 picks a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names that clients call the service by while COPPICE_AUTH is off, e.g. pruning.example.org, separated by "
        "commas; addresses and names without a dot always count. With keys any name does.",
    )
    max_body_bytes: int = Field(default=2**20, ge=1024, description="Largest JSON request body.")

    max_upload_bytes: int = Field(default=32 * 2**30, ge=1024, description="Largest upload, packed or unpacked.")
    max_uploads_bytes: int = Field(default=256 * 2**30, ge=1024, description="Uploads of one owner together.")
    uploads_at_once: int = Field(default=4, ge=1, description="Uploads of one owner that may be under way at once.")
    inspections: int = Field(
        default=2,
        ge=1,
        description="Archives that one API process unpacks at once, and as many models and data sets that it looks at; each "
        "in a process of its own.",
    )
    inspections_per_owner: int = Field(default=1, ge=1, description="How many of these may be of one owner.")
    inspection_wait_s: float = Field(default=30, gt=0, description="A request waits so long for its turn, then gets `busy`.")
    inspection_memory_bytes: int = Field(
        default=2**28, ge=2**26, description="Memory that such a process may take to look at a model or a data set."
    )
    body_patience_s: float = Field(default=30, gt=0, description="A request whose body makes no progress for so long is ended.")
    head_patience_s: float = Field(
        default=15, gt=0, description="A connection on which the head of a request is not complete after so long is closed."
    )
    send_patience_s: float = Field(
        default=60, gt=0, description="A connection whose client takes nothing of an answer for so long is closed."
    )
    slowest_bytes_per_s: float = Field(
        default=1024,
        gt=0,
        description="Bodies and answers that go more slowly than this use up the patience with them, as standing still does.",
    )
    keep_alive_s: int = Field(
        default=5, ge=1, description="An idle connection is kept so long; longer than a proxy in front keeps its own, if any."
    )
    max_head_bytes: int = Field(default=2**15, ge=2**12, description="Longest head of a request: its line and its headers.")
    max_connections: int = Field(default=4096, ge=1, description="Connections that may be open at once.")
    max_connections_per_address: int = Field(
        default=2048,
        ge=1,
        description="The same from one address (IPv6: one /64), except from a trusted proxy.",
    )
    end_patience_s: float = Field(
        default=5, gt=0, description="Requests that run when the API is told to end may go on for so long."
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks of the proxies in front, e.g. 10.0.0.0/8: what they say in X-Forwarded-For and "
        "X-Forwarded-Proto of address and scheme is believed. Empty: nobody is believed.",
    )

    auth: bool = Field(default=False, description="Whether callers must show an API key; see coppice keys.")
    secret: SecretStr = Field(
        default=SecretStr(""),
        description="What keys are hashed with, the same in every process, of at least 32 characters (openssl rand -hex 32); "
        "empty: a file of the data folder.",
    )
    secret_old: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Secrets that count besides COPPICE_SECRET while it is replaced, separated by commas; see the guide to "
        "operations.",
    )
    signing_key: Path | None = Field(
        default=None,
        description="PEM file of the private key (EC P-256) that workers sign finished bundles with; the API needs none. "
        "Empty: with SQLite in data_dir a key is made there once, else bundles are not signed.",
    )
    signing_public_keys: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="PEM files of public keys that the API publishes for coppice verify, the current one first, then those of "
        f"earlier bundles, separated by {os.pathsep!r}; empty: the one of COPPICE_SIGNING_KEY.",
    )
    requests_per_minute: int = Field(
        default=1200,
        ge=1,
        description="Requests of one key, all of which may come at once. Each API process counts for itself.",
    )

    metrics_token: SecretStr = Field(
        default=SecretStr(""),
        description="What Prometheus shows at /metrics as Bearer, of at least 32 characters; needed there with COPPICE_AUTH.",
    )
    worker_metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of each worker's own /metrics; empty: none. Workers of one host need one each.",
    )
    worker_metrics_host: str = Field(default="127.0.0.1", description="Address of the same; 0.0.0.0 in a container.")
    worker_events: bool = Field(
        default=False,
        description="Workers tell Celery's monitors (Flower) what they do, and answer to them: whoever reaches the broker may "
        "then stop workers too. Needs Redis.",
    )

    tracing: bool = Field(
        default=False,
        description="Tell an OpenTelemetry collector of requests and jobs, by OTLP over HTTP; where it is say "
        "OTEL_EXPORTER_OTLP_ENDPOINT and OpenTelemetry's other variables.",
    )

    webhook_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that webhooks may reach besides the public internet, e.g. 10.1.0.0/16,fd00::/8; empty: none.",
    )
    webhook_poll_s: float = Field(default=1, gt=0, description="How often the API looks for webhook messages to send.")

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

    sandbox: Sandbox = Field(
        default=Sandbox.AUTO,
        description="Whether a job's process must be kept from files that are not its own and from the network: `required` (a "
        "worker does not start where the host cannot), `preferred` (as far as the host can), `off` (its environment is cleaned "
        "all the same); `auto` is required with COPPICE_AUTH, else preferred. coppice doctor says what a host can.",
    )
    job_user: str = Field(
        default="10002",
        pattern=r"^(\d{1,9}(:\d{1,9})?)?$",
        description="User and group, as numbers (10002:10002), that a job's process becomes where the worker runs as root; "
        "empty: it stays the worker's.",
    )
    hub_token_tenants: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Tenants whose jobs fetch from the Hub with the worker's HF_TOKEN, separated by commas; * is all. "
        "Others fetch what is public. Without COPPICE_AUTH all jobs do.",
    )
    hub_max_bytes: int = Field(
        default=128 * 2**30, ge=2**20, description="Largest model or data set that is fetched from the Hub."
    )
    hub_timeout_s: float = Field(default=3600, gt=0, description="Longest time that fetching one of them may take.")

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
    idempotency_keep_s: float = Field(default=48 * 3600, gt=0, description="Idempotency keys are remembered for so long.")

    device: str = Field(default="", description="Torch device of the worker, e.g. cpu or cuda:0; empty: a GPU if there is one.")
    devices: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Torch devices of the worker, separated by commas, each of which runs a job at the same time: "
        "cuda:0,cuda:1. All are of one class. Empty: the one of COPPICE_DEVICE.",
    )
    worker_tags: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=6,
        description="Tags of the worker, separated by commas, e.g. a100,nvlink: jobs may ask for a worker that has them.",
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads of a job; empty: torch's own default.")
    engines_dir: Path | None = Field(
        default=None,
        description="Folder of the environments of engines (vllm, llama-cpp, mlx, openvino) that bundles are run in, where a "
        "job asks for them; see coppice engines. Empty: the folder engines in the worker's own Python environment, where make "
        "engines makes them.",
    )
    log_json: bool = Field(default=True, description="Logs as JSON lines; false: for people.")

    @field_validator("allowed_roots", "signing_public_keys", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator(
        "webhook_networks",
        "trusted_proxies",
        "allowed_hosts",
        "hub_token_tenants",
        "secret_old",
        "devices",
        "worker_tags",
        mode="before",
    )
    @classmethod
    def _split_list(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("worker_tags")
    @classmethod
    def _known_form(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.fullmatch(TAG, tag) is None for tag in value):
            raise ValueError("a tag has 1 to 24 small letters, digits, ., _ and -, and begins with a letter or a digit")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _devices_of_one_class(self) -> Settings:
        if self.devices and self.device:
            raise ValueError("COPPICE_DEVICES takes the place of COPPICE_DEVICE; set one of them")
        if len({name.partition(":")[0] for name in self.devices}) > 1:
            raise ValueError("COPPICE_DEVICES must be of one class; start a worker for the GPUs and one for the CPU")
        if len(set(self.devices)) < len(self.devices) and any(name != "cpu" for name in self.devices):
            raise ValueError("COPPICE_DEVICES must name each GPU once: two jobs on one would run out of its memory")
        return self

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

    @field_validator("secret", "metrics_token", "secret_old")
    @classmethod
    def _long_enough(cls, value: SecretStr | tuple[SecretStr, ...]) -> SecretStr | tuple[SecretStr, ...]:
        for secret in value if isinstance(value, tuple) else (value,):
            if secret.get_secret_value() and len(secret.get_secret_value()) < _SHORTEST_SECRET:
                raise ValueError(f"must have at least {_SHORTEST_SECRET} characters; openssl rand -hex 32 makes one")
        return value

    @model_validator(mode="after")
    def _one_secret_for_all(self) -> Settings:
        if self.auth and self.database_url and not self.secret.get_secret_value():
            raise ValueError("COPPICE_SECRET is needed with COPPICE_AUTH, as processes on several hosts must share it")
        return self

    @field_validator("tracing")
    @classmethod
    def _exporter_there(cls, value: bool) -> bool:
        if value and (find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None):
            raise ValueError("tracing needs OpenTelemetry: pip install 'coppice-server[otel]'")
        return value

    @model_validator(mode="after")
    def _events_need_redis(self) -> Settings:
        if self.worker_events and not self.broker_url:
            raise ValueError("COPPICE_WORKER_EVENTS needs COPPICE_BROKER_URL: a folder carries no events")
        return self

    @property
    def resolved_database_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite+pysqlite:///{self.data_dir.resolve() / 'coppice.db'}"

    @property
    def resolved_devices(self) -> tuple[str, ...]:
        """The devices of the worker, at least one; "" is the one that torch chooses."""
        return self.devices or (self.device,)

    @property
    def resolved_artifacts_dir(self) -> Path:
        """The artifact folder to use."""
        return self.artifacts_dir or self.data_dir / "artifacts"

    @property
    def resolved_uploads_dir(self) -> Path:
        """The folder of uploads to use."""
        return (self.uploads_dir or self.resolved_artifacts_dir / "uploads").resolve()

    @property
    def resolved_scratch_dir(self) -> Path:
        """The scratch folder to use."""
        return self.scratch_dir or self.data_dir / "scratch"

    @property
    def closed_folders(self) -> tuple[Path, ...]:
        """The folders in which the service keeps what is its tenants'. No path of a client leads there."""
        return (self.resolved_uploads_dir, self.resolved_artifacts_dir.resolve(), self.resolved_scratch_dir.resolve())

    @property
    def worker_gone_s(self) -> float:
        """A worker that was not seen for so long is not counted."""
        return max(self.lease_s, 3 * self.reaper_tick_s)

    @property
    def resolved_sandbox(self) -> Sandbox:
        """The sandbox to use, never ``AUTO``."""
        if self.sandbox is not Sandbox.AUTO:
            return self.sandbox
        return Sandbox.REQUIRED if self.auth else Sandbox.PREFERRED

    @property
    def resolved_job_user(self) -> tuple[int, int] | None:
        """The user and the group to become for a job; None: the worker's own."""
        user, _colon, group = self.job_user.partition(":")
        return (int(user), int(group or user)) if user else None


@cache
def get_settings() -> Settings:
    """Read the environment, once a process.

    Raises:
        SettingsInvalid: A variable is invalid.
    """
    try:
        return Settings()
    except ValidationError as error:
        # Values are left out of the message: a URL may hold a password.
        lines = [
            (f"COPPICE_{str(item['loc'][0]).upper()}: " if item["loc"] else "") + message_of(item)
            for item in error.errors(include_input=False)
        ]
        raise SettingsInvalid("; ".join(lines)) from None
