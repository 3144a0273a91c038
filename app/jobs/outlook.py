"""What other budgets of a job would bring, by its report and those of the jobs that it shares a dense model with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, Field

from app.db import Database
from app.jobs.derivation import DERIVED_FROM
from app.jobs.records import Job
from app.jobs.repository import JobRepository
from app.jobs.search import Wanted
from app.jobs.states import JobStatus
from app.refusals import NotFound
from pruning_core.report.foresight import Built, Foresight, divergence_of
from pruning_core.report.report import Outcome, Report
from pruning_core.spec.targets import any_rounds

# Of jobs that were derived from one, the newest so many count.
_MOST_RELATIVES = 50


class PredictedView(BaseModel):
    """What one budget would bring. Sizes are counted; null: nothing was built by which it could be told."""

    macs_keep: float
    parameters: int
    bytes: int
    speedup: float | None
    divergence: float | None


class BuiltView(BaseModel):
    """A checkpoint that was built, and what would have been predicted of it from the others alone."""

    job: str
    path: str = Field(description="Its folder in the job's bundle; `.`: the bundle's own.")
    macs_keep: float
    bytes: int
    speedup: float
    divergence: float | None
    predicted_speedup: float | None = Field(description="Null: there is no other to predict it by.")
    predicted_divergence: float | None


class OutlookView(BaseModel):
    """What other budgets would bring, predicted at once: nothing is computed but from what the job has found out."""

    job: str
    measure: str | None = Field(description="What `divergence` is; 0 is the dense model. Null: the task has no such measure.")
    dense_parameters: int
    dense_bytes: int
    least_keep: float = Field(description="The smallest share of the multiply-accumulates that can be kept.")
    predictions: list[PredictedView] = Field(description="For each per cent of the multiply-accumulates, from large to small.")
    built: list[BuiltView] = Field(description="The checkpoints that the predictions stand on, from large to small.")


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    job: str
    path: str
    bytes: int
    built: Built

    @classmethod
    def of(cls, job: Job, path: str, outcome: Outcome) -> _Checkpoint:
        """Take the numbers from an outcome."""
        own, macs = divergence_of(outcome.quality), outcome.macs
        built = Built(macs.pruned / macs.dense, outcome.latency_ms.speedup, None if own is None else own.value)
        return cls(job.public_id, path, outcome.bytes.pruned, built)


class Outlooks:
    """Predictions of other budgets, for jobs in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, job_id: str, *, owner: str) -> OutlookView:
        """Predict other budgets of a job from its report and those of the jobs that it shares a dense model with.

        Raises:
            NotFound: There is no such job, or nothing to predict by.
        """
        with self._database.read() as connection:
            repository = JobRepository(connection)
            job = repository.known(job_id, owner=owner)
            parent = job.metadata.get(DERIVED_FROM)
            relatives = [] if parent is None else [repository.get(parent, owner=owner)]
            for name in filter(None, (job.public_id, parent)):
                wanted = Wanted(owner, [JobStatus.SUCCEEDED], {DERIVED_FROM: name})
                relatives += repository.list(wanted, after=None, limit=_MOST_RELATIVES)
        return outlook_of(job, [own for own in relatives if own is not None])


def outlook_of(job: Job, relatives: Iterable[Job]) -> OutlookView:
    """Predict other budgets of a job.

    Args:
        job: The job.
        relatives: Jobs that were derived from it, or that it was derived from. Those that ask for another layout or repair, or
            have no report, are left out.

    Raises:
        NotFound: It has no report yet, or one without an outlook.
    """
    report = job.report
    if report is None:
        raise NotFound("report_not_ready", f"the job is {job.status} and has no report")
    if report.outlook is None:
        raise NotFound("no_outlook", why_none(job, report))
    others = {own.id: own for own in relatives if own.id != job.id and own.report is not None}
    alike = [own for own in others.values() if _alike(own, job)]
    checkpoints = sorted(
        (found for own in (job, *alike) for found in _checkpoints(own)), key=lambda one: one.built.keep, reverse=True
    )
    measured = divergence_of(report.quality)

    def foresight(built: Sequence[Built]) -> Foresight:
        assert report.outlook is not None, "looked at above"
        dense = {"parameters": report.parameters.dense, "size": report.bytes.dense}
        return Foresight(report.outlook, built, least=0.0 if measured is None else measured.least, **dense)

    known = [own.built for own in checkpoints]
    whole = foresight(known)
    return OutlookView(
        job=job.public_id,
        measure=None if measured is None else measured.measure,
        dense_parameters=report.parameters.dense,
        dense_bytes=report.bytes.dense,
        least_keep=whole.least_keep,
        predictions=[
            PredictedView(
                macs_keep=found.keep,
                parameters=found.parameters,
                bytes=found.bytes,
                speedup=found.speedup,
                divergence=found.divergence,
            )
            for found in (whole.at(share / 100) for share in range(99, 0, -1) if whole.covers(share / 100))
        ],
        built=[_judged(own, foresight([*known[:place], *known[place + 1 :]])) for place, own in enumerate(checkpoints)],
    )


def why_none(job: Job, report: Report) -> str:
    """Say why there is no outlook in a report."""
    if report.layout == "stock":
        return "in the layout stock other budgets cannot be predicted: trial repairs choose the layers that stay"
    if report.target.metric == "bytes":
        return "a target in bytes rounds weights, too, and what other budgets would round is not known beforehand"
    if report.pattern is not None:
        return f"{job.spec.method.name} keeps all shapes, so that other budgets change neither size nor time"
    return "the job's report is of an earlier version, which did not look at other budgets; derive a job from it"


def _alike(one: Job, other: Job) -> bool:
    """Return whether two jobs would have built the same checkpoint for the same budget."""
    fields = ("model", "revision", "task", "method", "recovery", "calibration", "seed")
    same = all(getattr(one.spec, name) == getattr(other.spec, name) for name in fields)
    return same and not any_rounds(one.spec.all_targets) and one.spec.artifacts.layout == other.spec.artifacts.layout


def _checkpoints(job: Job) -> list[_Checkpoint]:
    report = job.report
    assert report is not None, "its callers look"
    outcomes = {point.path: point for point in report.frontier} or {".": report}
    return [_Checkpoint.of(job, path, own) for path, own in outcomes.items() if own.macs.dense > 0]


def _judged(own: _Checkpoint, by_others: Foresight) -> BuiltView:
    built = own.built
    foreseen = by_others.at(built.keep) if by_others.covers(built.keep) else None
    return BuiltView(
        job=own.job,
        path=own.path,
        macs_keep=built.keep,
        bytes=own.bytes,
        speedup=built.speedup,
        divergence=built.divergence,
        predicted_speedup=None if foreseen is None else foreseen.speedup,
        predicted_divergence=None if foreseen is None or built.divergence is None else foreseen.divergence,
    )
