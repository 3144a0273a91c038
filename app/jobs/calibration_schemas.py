"""Calibrations as the API takes and shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, model_validator
from pydantic.config import JsonDict

from app.jobs.calibrations import Calibration
from app.jobs.records import Job, is_calibration
from app.jobs.schemas import ErrorView, JobCreate, ProgressView, known_moment, moment_of, progress_of, without_target
from app.jobs.states import TERMINAL, JobStatus
from pruning_core.report.statistics import KeptReport
from pruning_core.spec.method import METHODS
from pruning_core.spec.prune import PruneSpec

_IMPLIES_TARGET = {name for name, kind in METHODS.items() if kind.implies_target}
_NO_FIELDS = ("target", "targets", "sparsity", "quality_floor", "calibration_id", "validate_only")
# A spec has a target. Nothing that is gathered depends on this one, and no answer shows it.
_OF_NO_ACCOUNT = {"metric": "sparsity", "sparsity": 0.5, "tolerance": 0.1}


def _document(schema: JsonDict) -> None:
    properties = cast("dict[str, Any]", schema["properties"])
    for name in _NO_FIELDS:
        properties.pop(name, None)
    properties["data"] = {"type": "string", "description": "Shorthand for task.dataset."}


class CalibrationCreate(JobCreate):
    """The body of a job without what is asked of the result: a calibration serves any target."""

    model_config = ConfigDict(json_schema_extra=_document)

    @model_validator(mode="before")
    @classmethod
    def _has_no_target(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        given = dict(cast("Mapping[str, Any]", value))
        if found := [name for name in _NO_FIELDS if given.get(name) not in (None, (), [], False)]:
            raise ValueError(
                f"a calibration serves any target and builds nothing, so it takes no {' and no '.join(found)}: leave it out, "
                "and name the calibration in a job that asks for it"
            )
        rest = {name: own for name, own in given.items() if name not in _NO_FIELDS}
        method = rest.get("method")
        name = cast("Mapping[str, Any]", method).get("name") if isinstance(method, Mapping) else method
        # Such a method says what is asked for by itself, and takes nothing else.
        return rest if name in _IMPLIES_TARGET else {**rest, "target": _OF_NO_ACCOUNT}


class CalibrationView(BaseModel):
    """One calibration: what is known of a dense model on some data, for jobs to start from."""

    id: str
    object: Literal["pruning.calibration"] = "pruning.calibration"
    name: str | None = Field(default=None, description="What its owner calls it.")
    tags: list[str] = Field(default_factory=list)
    status: JobStatus
    kept: bool = Field(description="Whether its pieces can be had; false before it has succeeded, and once they were freed.")
    model: str
    task: str
    data: str
    size: int = Field(description="Bytes of its pieces.")
    pieces: list[KeptReport] = Field(description="What was gathered, or was there already.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    used_at: datetime | None = Field(description="When a worker last fetched its pieces, or they were made.")
    jobs_served: int = Field(description="How many jobs have named it.")
    jobs: list[str] = Field(description="The ids of the newest of these.")
    spec: Annotated[PruneSpec, SkipValidation]
    progress: ProgressView | None
    attempt: int
    priority: int
    error: ErrorView | None
    metadata: dict[str, str]
    links: dict[str, str]

    @classmethod
    def of(cls, job: Job, known: Calibration) -> CalibrationView:
        """Show a calibration."""
        assert is_calibration(job.id)
        spec, as_job = without_target(job), f"/v1/jobs/{job.id}"
        links = {"self": f"/v1/calibrations/{job.id}", "events": f"{as_job}/events", "job": as_job}
        links |= {} if job.status in TERMINAL else {"cancel": f"{as_job}/cancel"}
        links |= {"retry": f"{as_job}/retry"} if job.status == JobStatus.FAILED else {}
        links |= {"derive": f"{as_job}/derive"} if known.size else {}
        return cls(
            id=job.id,
            name=job.naming.name,
            tags=list(job.naming.tags),
            status=job.status,
            kept=known.size > 0,
            model=spec.model,
            task=spec.task.name or spec.task.type,
            data=spec.task.dataset,
            size=known.size,
            pieces=[] if known.found is None else list(known.found.pieces),
            created_at=moment_of(job.created_at),
            used_at=known_moment(known.used_at),
            started_at=known_moment(job.started_at),
            finished_at=known_moment(job.finished_at),
            expires_at=known_moment(job.expires_at),
            jobs_served=known.served,
            jobs=list(known.newest),
            spec=spec,
            progress=progress_of(job),
            attempt=job.attempt,
            priority=job.priority,
            error=ErrorView.of(job),
            metadata=job.metadata,
            links=links,
        )


class CalibrationList(BaseModel):
    """A page of calibrations, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[CalibrationView]
    has_more: bool
    next: str | None
