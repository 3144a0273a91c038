"""Use cases of calibrations beside those of jobs: the list, one of them, and what a job may name.

A job may name a finished one, with its pieces, of the same model, data and settings.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.db import Database
from app.jobs.calibrations import Calibration, CalibrationRepository
from app.jobs.records import Job, is_calibration
from app.jobs.repository import JobRepository
from app.jobs.states import JobStatus
from app.refusals import NotFound, Refused
from app.uploads.records import shown_reference
from pruning_core.spec.prune import PruneSpec

_POINTER = "/calibration_id"
# A name and a metric change nothing about what is gathered; with more memory, more of it is kept.
_NO_MATTER = {"name", "metric"}


class Calibrations:
    """Reads calibrations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, *, owner: str, after: str | None, limit: int) -> tuple[Sequence[tuple[Job, Calibration]], bool]:
        """List a page of calibrations, newest first. Also return whether there are more."""
        with self._database.read() as connection:
            own = CalibrationRepository(connection)
            try:
                ids = own.page(owner, after=after, limit=limit + 1)
            except LookupError:
                message = "after must be the id of a calibration, as given by `next` of the page before"
                raise Refused("invalid_request", message, "after") from None
            known, jobs = own.read(ids[:limit]), JobRepository(connection)
            found = [(job, known[job_id]) for job_id in ids[:limit] if (job := jobs.get(job_id, owner=owner)) is not None]
        return found, len(ids) > limit

    def get(self, calibration_id: str, *, owner: str) -> tuple[Job, Calibration]:
        """Read a calibration. Raises `NotFound`."""
        with self._database.read() as connection:
            job = JobRepository(connection).get(calibration_id, owner=owner)
            if job is None or not is_calibration(job.id):
                raise NotFound("calibration_not_found", "there is no such calibration")
            return job, CalibrationRepository(connection).read([job.id])[job.id]

    def of_job(self, job: Job) -> str | None:
        """Return the calibration that a job names, where its pieces are still kept."""
        if job.calibration is None:
            return None
        with self._database.read() as connection:
            return job.calibration if JobRepository(connection).artifacts(job.calibration) else None

    def check_named(self, calibration_id: str, spec: PruneSpec, owner: str) -> None:
        """Refuse a calibration from which a job could take nothing. Raises `Refused`."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            job = repository.get(calibration_id, owner=owner)
            has_pieces = job is not None and bool(repository.artifacts(job.id))
        _check_named(job, calibration_id, spec, has_pieces=has_pieces)


def _check_named(job: Job | None, named: str, spec: PruneSpec, *, has_pieces: bool) -> None:
    """Refuse what a job names as its calibration, where it could take nothing from it.

    Args:
        job: The owner's job of this id; None: there is none.
        named: The id.
        spec: What the job asks for, with paths resolved.
        has_pieces: Whether its pieces are kept.

    Raises:
        Refused: It is none, has no pieces, or is of another model, task, data, calibration or seed.
    """
    if job is None:
        raise Refused("calibration_not_found", f"there is no calibration {named}; GET /v1/calibrations lists yours", _POINTER)
    if not is_calibration(job.id):
        said = f"{named} is a job and no calibration; POST /v1/calibrations makes one, GET /v1/calibrations lists yours"
        raise Refused("calibration_not_found", said, _POINTER)
    if job.status is not JobStatus.SUCCEEDED:
        said = f"{named} is {job.status}; name a calibration that has succeeded, or leave calibration_id out"
        raise Refused("calibration_not_ready", said, _POINTER)
    if not has_pieces:
        said = f"the pieces of {named} were freed to make room, or have expired; calibrate again, or leave calibration_id out"
        raise Refused("calibration_freed", said, _POINTER)
    theirs, ours = _depends(job.spec), _depends(spec)
    if wrong := [name for name in ours if ours[name] != theirs[name]]:
        name = wrong[0]
        shown = f": {shown_reference(str(theirs[name]))}" if name in {"model", "data", "seed", "revision"} else ""
        said = f"{named} is of another {' and another '.join(wrong)} than this job{shown}; name one that fits, or leave it out"
        raise Refused("calibration_does_not_fit", said, _POINTER)


def _depends(spec: PruneSpec) -> dict[str, object]:
    """Return what statistics depend on, as far as a spec tells."""
    return {
        "model": spec.model,
        "revision": spec.revision,
        "adapter": spec.adapter,
        "vocabulary": spec.vocabulary,
        "data": spec.task.dataset,
        "task": spec.task.model_dump(exclude={*_NO_MATTER, "dataset"}),
        "calibration": spec.calibration.model_dump(exclude={"memory_mb"}),
        "seed": spec.seed,
    }
