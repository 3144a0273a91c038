"""The job as the API shows it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, StringConstraints

from app.jobs.naming import MOST_TAGS, Naming, Tags
from app.jobs.needs import NO_NEEDS, Needs
from app.jobs.places import Place
from app.jobs.records import EventType, Job, JobEvent, PublishedArtifact, is_calibration
from app.jobs.states import ACTIVE, TERMINAL, JobStatus
from app.uploads.records import shown_reference
from pruning_core.checks.findings import Findings
from pruning_core.checks.prediction import Prediction
from pruning_core.report.progress import Stage
from pruning_core.report.target import TargetReport
from pruning_core.spec.data_places import data_places, with_data
from pruning_core.spec.naming import RunName
from pruning_core.spec.prune import PruneSpec

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.\-]+$")]
# No NUL: PostgreSQL could store it but not look for it.
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]

_TELLING_FRACTION = 0.05  # least share of the work done from which the rest is extrapolated


class JobCreate(PruneSpec):
    """A PruneSpec, and what belongs to the job rather than to the pruning."""

    name: RunName | None = Field(default=None, description="What you call the job: one line of text, emoji and all.")
    tags: Tags = Field(default=(), description=f"Up to {MOST_TAGS} words by which jobs are found together; each counts once.")
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16)
    priority: int = Field(
        default=0,
        ge=0,
        le=9,
        description="Higher runs first among your own jobs; before those of other tenants with the scope jobs:priority alone.",
    )

    needs: Needs = Field(default=NO_NEEDS, description="What the job's worker must have; by default any does.")
    max_attempts: int | None = Field(
        default=None, ge=1, le=1000, description="Crashes, or lost workers, after which the job has failed; null: the server's."
    )
    timeout_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Longest time of one attempt, from its beginning until the bundle is made; null: the server's.",
    )

    calibration_id: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[A-Za-z0-9_\-]+$",
        description="A calibration of yours whose pieces the job starts from: same model, task, data, calibration, seed.",
    )

    validate_only: bool = Field(default=False, description="Answer with the plan, and submit nothing.")

    @property
    def naming(self) -> Naming:
        """What the job is to be called."""
        return Naming(self.name, self.tags)

    def to_spec(self) -> PruneSpec:
        """Return the spec alone. Its fields were validated as the request's own, which are checked as the spec's are."""
        fields = {name: getattr(self, name) for name in PruneSpec.model_fields}
        return PruneSpec.model_construct(set(fields), **fields)


class JobChange(BaseModel):
    """What changes about a job that there is: what it is called. What is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    name: RunName | None = Field(default=None, description="null: none any more.")
    tags: Tags = Field(default=(), description="All tags that it has from now on.")

    def applied_to(self, naming: Naming) -> Naming:
        """Return what a job is called after the change."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return replace(naming, **given)


class ProgressView(BaseModel):
    """Where a running job is."""

    stage: Stage
    step: int
    total: int
    fraction: float = Field(description="Estimated share of the whole job, 0 to 1.")


class QueueView(BaseModel):
    """Where a queued job is."""

    before: int = Field(
        description="Jobs that are taken before it, of all tenants, if none is added; counted up to 1,000. Tenants have turns "
        "by their shares; priority orders the jobs of each."
    )
    workers: int = Field(
        description="Workers that are signed in and serve it, busy ones too. 0: the job waits until one is started."
    )
    why: str | None = Field(default=None, description="Why it waits; null: for its turn, or for a worker that is free.")
    paused: bool = Field(default=False, description="Whether an operator has paused the queue, so that nothing is taken.")

    @classmethod
    def of(cls, place: Place) -> QueueView:
        """Show a place."""
        return cls(before=place.before, workers=place.workers, why=place.why, paused=place.paused)


class ErrorView(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None

    @classmethod
    def of(cls, job: Job) -> ErrorView | None:
        """Show why a job failed; None where it has not."""
        error = job.error
        return None if error is None else cls(code=error.code, message=error.message, param=error.param)


class RequestedView(BaseModel):
    """The target as asked for, in the metric's own unit; or the quality floor, where it alone was given."""

    metric: str
    value: float
    tolerance: float


class ArtifactView(BaseModel):
    """One file of the bundle."""

    path: str
    size: int
    sha256: str
    url: str

    @classmethod
    def of(cls, job_id: str, artifact: PublishedArtifact) -> ArtifactView:
        """Show an artifact of the job that goes by ``job_id`` outside."""
        url = f"/v1/jobs/{job_id}/artifacts/{quote(artifact.path)}"
        return cls(path=artifact.path, size=artifact.size, sha256=artifact.sha256, url=url)


class JobView(BaseModel):
    """One pruning job."""

    id: str
    object: Literal["pruning.job"] = "pruning.job"
    name: str | None = Field(default=None, description="What its owner calls it.")
    tags: list[str] = Field(default_factory=list)
    status: JobStatus
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    estimated_finish: datetime | None = Field(
        description="From the progress so far, and from the time since where that has taken longer; null: too early to say."
    )
    expires_at: datetime | None = Field(description="When the files of a finished job are deleted; null: never.")
    spec: Annotated[PruneSpec, SkipValidation]  # of a job that there is
    progress: ProgressView | None
    queue: QueueView | None = Field(default=None, description="Where the job waits; null in lists, and once it runs.")
    attempt: int
    priority: int
    needs: Needs = NO_NEEDS
    max_attempts: int | None = Field(description="As asked for; null: the server's.")
    timeout_s: float | None = Field(description="As asked for; null: the server's.")
    requested: RequestedView | None = Field(description="Null for a calibration, which serves any target.")
    achieved: TargetReport | None
    metrics: dict[str, Any] | None = Field(description="Headline figures of the report.")
    error: ErrorView | None
    artifacts: list[ArtifactView]
    metadata: dict[str, str]
    calibration_id: str | None = Field(default=None, description="The calibration that the job names.")
    links: dict[str, str]

    @classmethod
    def of(cls, job: Job, artifacts: list[PublishedArtifact], place: Place | None = None) -> JobView:
        """Show a job, and its place where it waits."""
        root = f"/v1/jobs/{job.public_id}"
        return cls(
            id=job.public_id,
            name=job.naming.name,
            tags=list(job.naming.tags),
            status=job.status,
            created_at=moment_of(job.created_at),
            started_at=known_moment(job.started_at),
            finished_at=known_moment(job.finished_at),
            estimated_finish=_estimate(job),
            expires_at=known_moment(job.expires_at),
            spec=without_target(job),
            progress=progress_of(job),
            queue=None if place is None else QueueView.of(place),
            attempt=job.attempt,
            priority=job.priority,
            needs=job.needs,
            max_attempts=job.limits.max_attempts,
            timeout_s=job.limits.timeout_s,
            requested=None if is_calibration(job.id) else _requested(job.spec),
            achieved=None if job.report is None else job.report.target,
            metrics=None if job.report is None else _headline(job),
            error=ErrorView.of(job),
            artifacts=[ArtifactView.of(job.public_id, artifact) for artifact in artifacts],
            metadata=job.metadata,
            calibration_id=job.calibration,
            links=_links(job, root, has_files=bool(artifacts)),
        )


class PlanView(BaseModel):
    """The job that a submit would accept, and the predicted result. Nothing was submitted."""

    object: Literal["pruning.plan"] = "pruning.plan"
    spec: PruneSpec
    predicted: Prediction | None = Field(description="Null where the model is on the Hub: its files are not here yet.")
    found: Findings = Field(description="What was found in the data, what was guessed, and what was not looked at.")

    @classmethod
    def of(cls, spec: PruneSpec, predicted: Prediction | None, found: Findings) -> PlanView:
        """Show a plan."""
        return cls(spec=shown(spec), predicted=predicted, found=found)


class JobList(BaseModel):
    """A page of jobs, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[JobView]
    has_more: bool
    next: str | None


class EventView(BaseModel):
    """One line of a job's event log."""

    id: int
    object: Literal["pruning.job.event"] = "pruning.job.event"
    type: EventType
    created_at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, event: JobEvent) -> EventView:
        """Show an event."""
        return cls(id=event.id, type=event.type, created_at=moment_of(event.created_at), data=event.data)


class EventList(BaseModel):
    """A job's events, oldest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[EventView]
    has_more: bool
    next: int | None


class OutputView(BaseModel):
    """What one attempt has printed: a line at each stage, with its time, and the process's own lines."""

    attempt: int
    text: str = Field(description="Its last 65,536 characters at most. Places of the worker's host are left out.")


class OutputList(BaseModel):
    """What the last attempts of a job have printed, the oldest first."""

    object: Literal["list"] = "list"
    data: list[OutputView]


class ArtifactList(BaseModel):
    """The files of a bundle."""

    object: Literal["list"] = "list"
    data: list[ArtifactView]


def shown(spec: PruneSpec) -> PruneSpec:
    """Return a spec as clients may see it and send it again: uploads by their ids."""
    places = data_places(spec)
    data = {own.param: shown_reference(own.reference) for own in places}
    model = shown_reference(spec.model)
    if model == spec.model and all(data[own.param] == own.reference for own in places):
        return spec
    return with_data(spec, data).model_copy(update={"model": model})


def without_target(job: Job) -> PruneSpec:
    """Return the spec of a job as clients may see it. That of a calibration has no target: the row's is of no account."""
    own = shown(job.spec)
    return own.model_copy(update={"target": None}) if is_calibration(job.id) else own


def moment_of(seconds: float) -> datetime:
    """Return a moment of the database's clock as the API shows it."""
    return datetime.fromtimestamp(seconds, UTC)


def known_moment(seconds: float | None) -> datetime | None:
    """Return a moment as the API shows it; None where there was none yet."""
    return None if seconds is None else moment_of(seconds)


def _requested(spec: PruneSpec) -> RequestedView:
    if not spec.all_targets:
        assert spec.quality_floor is not None, "a spec has targets or a floor"
        return RequestedView(metric="quality_floor", value=spec.quality_floor.value, tolerance=0)
    target = spec.all_targets[0]
    return RequestedView(metric=target.metric, value=target.requested, tolerance=target.tolerance)


def _links(job: Job, root: str, *, has_files: bool) -> dict[str, str]:
    links = {"self": root, "events": f"{root}/events", "artifacts": f"{root}/artifacts", "report": f"{root}/report"}
    if job.status not in TERMINAL:
        links["cancel"] = f"{root}/cancel"
    if job.status == JobStatus.FAILED:
        links["retry"] = f"{root}/retry"
    if has_files:
        links["download"] = f"{root}/download"
    return links


def progress_of(job: Job) -> ProgressView | None:
    """Show where a job is; None before it runs."""
    if job.progress is None:
        return None
    finished = job.status == JobStatus.SUCCEEDED
    return ProgressView(
        stage=job.progress.stage,
        step=job.progress.step,
        total=job.progress.total,
        fraction=1.0 if finished else round(job.progress.fraction, 4),
    )


def _estimate(job: Job) -> datetime | None:
    """Extrapolate from the work done when progress was last written; None before there is enough of it.

    Where that moment has passed, the stage takes longer than was thought: what is done has taken until now.
    """
    if job.status not in ACTIVE or job.progress is None or job.started_at is None or job.progress_at is None:
        return None
    if job.progress.fraction < _TELLING_FRACTION:
        return None
    end = job.started_at + max(0.0, job.progress_at - job.started_at) / job.progress.fraction
    now = datetime.now(UTC).timestamp()
    return moment_of(end if end > now else job.started_at + (now - job.started_at) / job.progress.fraction)


def _headline(job: Job) -> dict[str, Any]:
    report = job.report
    assert report is not None
    return {
        "sparsity": report.sparsity.achieved,
        "macs": report.macs.model_dump(),
        "parameters": report.parameters.model_dump(),
        "bytes": report.bytes.model_dump(),
        "quality": report.quality.model_dump(),
        "latency_ms": report.latency_ms.model_dump(),
        "seconds": report.seconds.total,
    }
