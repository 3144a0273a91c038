"""Views of jobs for pages, beside the API's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, assert_never

from app.jobs.places import Place
from app.jobs.records import EventType, Job, JobEvent, is_calibration
from app.jobs.schemas import ArtifactView, JobView
from app.jobs.service import JobDetails
from app.jobs.states import ACTIVE, JobStatus
from app.web import formats
from pruning_core.report.progress import STAGES, Stage
from pruning_core.report.report import Report

# Complete, like the next table: tests compare both with the enums.
STATUS_WORDS: Mapping[JobStatus, str] = {
    JobStatus.QUEUED: "Queued",
    JobStatus.RUNNING: "Running",
    JobStatus.CANCELLING: "Cancelling",
    JobStatus.SUCCEEDED: "Succeeded",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Cancelled",
}
_EVENT_WORDS: Mapping[EventType, str] = {
    EventType.QUEUED: "Submitted",
    EventType.RETRIED: "Tried again",
    EventType.STARTED: "A worker took it",
    EventType.STAGE: "Stage",
    EventType.REQUEUED: "Back in the queue",
    EventType.CANCELLING: "Cancellation asked for",
    EventType.SUCCEEDED: "Succeeded",
    EventType.FAILED: "Failed",
    EventType.CANCELLED: "Cancelled",
}


_OF_CALIBRATIONS: frozenset[Stage] = frozenset({"load", "calibrate", "score", "evaluate"})


@dataclass(frozen=True, slots=True)
class JobPage:
    """A job as its page, and its row of the list, show it."""

    view: JobView
    report: Report | None

    @classmethod
    def of(cls, details: JobDetails, place: Place | None = None) -> JobPage:
        """Show a job, and its place where it waits."""
        return cls(JobView.of(details.job, details.artifacts, place), details.job.report)

    @property
    def name(self) -> str:
        """What its owner calls it, or the model's name."""
        return self.view.name or self.model

    @property
    def model(self) -> str:
        """The model's name."""
        return formats.model_name(self.view.spec.model)

    @property
    def target(self) -> str:
        """The target that was asked for."""
        return formats.target(self.view.spec)

    @property
    def calibrates(self) -> bool:
        """Whether it is a calibration, which builds nothing."""
        return is_calibration(self.view.id)

    @property
    def status_words(self) -> str:
        """The status as people say it."""
        return STATUS_WORDS[self.view.status]

    @property
    def is_active(self) -> bool:
        """Whether a worker has the job."""
        return self.view.status in ACTIVE

    @property
    def is_open(self) -> bool:
        """Whether the job will still change by itself."""
        return self.is_active or self.view.status == JobStatus.QUEUED

    @property
    def task(self) -> str:
        """The task's name, or its type."""
        return self.view.spec.task.name or self.view.spec.task.type

    @property
    def has_page(self) -> bool:
        """Whether the report's own page is among the files."""
        return any(artifact.path == "report.html" for artifact in self.view.artifacts)

    @property
    def folders(self) -> dict[str, list[ArtifactView]]:
        """The files by the folder that they are in, the bundle's own first."""
        found: dict[str, list[ArtifactView]] = {"": []}
        for artifact in self.view.artifacts:
            found.setdefault(artifact.path.rpartition("/")[0], []).append(artifact)
        return found

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(artifact.size for artifact in self.view.artifacts)


StepState = Literal["done", "current", "ahead", "stopped", "ended"]


@dataclass(frozen=True, slots=True)
class StageStep:
    """One stage of a job: ``done``, ``current``, ``ahead``, or where it failed (``stopped``) or was cancelled (``ended``)."""

    name: Stage
    state: StepState
    detail: str


def steps(job: Job) -> list[StageStep]:
    """List the stages that a job goes through, and where it is."""
    progress, spec = job.progress, job.spec
    skipped: set[Stage] = set()
    if not any(target.metric == "latency" for target in spec.all_targets):
        skipped.add("profile")
    if not getattr(spec.method, "rearrange", False):
        skipped.add("rearrange")
    if spec.recovery.kind == "none":
        skipped.add("recover")
    if not spec.trains:
        skipped.add("train")
    if not spec.artifacts.engines:
        skipped.add("engines")
    if is_calibration(job.id):
        skipped |= set(STAGES) - _OF_CALIBRATIONS
    current = -1 if progress is None else STAGES.index(progress.stage)
    finished = job.status == JobStatus.SUCCEEDED
    found: list[StageStep] = []
    for index, stage in enumerate(STAGES):
        if stage in skipped and index != current:
            continue
        taken = None if job.report is None else job.report.seconds.by_stage.get(stage)
        if finished or index < current:
            found.append(StageStep(stage, "done", "" if taken is None else formats.span(taken)))
        elif index == current and progress is not None:
            counted = f"{progress.step} of {progress.total}" if progress.total > 1 else ""
            found.append(StageStep(stage, _state_of_the_last(job.status), counted))
        else:
            found.append(StageStep(stage, "ahead", ""))
    return found


def _state_of_the_last(status: JobStatus) -> StepState:
    """Return the state of the stage that a job has reached."""
    match status:
        case JobStatus.RUNNING | JobStatus.CANCELLING:
            return "current"
        case JobStatus.CANCELLED:
            return "ended"
        case JobStatus.FAILED:
            return "stopped"
        case JobStatus.SUCCEEDED:
            return "done"
        case JobStatus.QUEUED:
            return "ahead"
        case _:
            assert_never(status)


@dataclass(frozen=True, slots=True)
class EventLine:
    """One line of a job's events, in words."""

    words: str
    moment: datetime


def event_lines(events: Sequence[JobEvent]) -> list[EventLine]:
    """Describe events in words."""
    return [EventLine(_words(event), datetime.fromtimestamp(event.created_at, UTC)) for event in events]


def _words(event: JobEvent) -> str:
    data = event.data
    if event.type == EventType.STAGE:
        return f"Stage {data.get('stage', '')}"
    said = _EVENT_WORDS[event.type]
    detail = data.get("reason") or data.get("message") or ""
    if event.type == EventType.STARTED and data.get("attempt", 1) != 1:
        detail = f"attempt {data['attempt']}"
    return f"{said}: {detail}" if detail else said
