"""The operations of a service, apart from how requests are sent: the sync and the async client run the same ones.

An operation is a generator: it yields requests, is sent their responses, and returns its result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx2

from coppice.errors import CoppiceError, DownloadCorrupt, FolderTaken
from coppice.files import Fetch, sha256_of, target_of
from coppice.types import (
    Artifact,
    BulkChange,
    Calibration,
    Job,
    JobEvent,
    JobPrediction,
    Outlook,
    Session,
    Upload,
)
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec

Result = TypeVar("Result")
Query = list[tuple[str, str | int | float | bool | None]]  # as the transport declares it

WAIT_S = 20
_PAGE = 100
_OF_A_RESULT = frozenset({"target", "targets", "sparsity", "quality_floor"})
_NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        repeatable: Whether sending the request twice does no more than sending it once. If not, it is sent again only where it
            cannot have arrived.
        upload: The archive to send as the body.
    """

    method: str
    path: str
    json: Mapping[str, Any] | None = None
    params: Query = field(default_factory=Query)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    upload: Path | None = None
    repeatable: bool = True


Operation = Generator[Request | Fetch, httpx2.Response, Result]


def submit(spec: PruneSpec | Mapping[str, Any], *, job_id: str | None, idempotency_key: str | None) -> Operation[Job]:
    """Submit a job, under the client's own id or with an idempotency key, so that a repeated request makes no second job."""
    if job_id is not None:
        answer = yield Request("PUT", f"/v1/jobs/{job_id}", json=body_of(spec))
    else:
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        answer = yield Request("POST", "/v1/jobs", json=body_of(spec), headers=headers)
    return Job.model_validate(answer.json())


def plan(spec: PruneSpec | Mapping[str, Any]) -> Operation[JobPrediction]:
    """Return what the service would do with a spec."""
    answer = yield Request("POST", "/v1/jobs", json={**body_of(spec), "validate_only": True})
    return JobPrediction.model_validate(answer.json())


def get(job_id: str) -> Operation[Job]:
    """Read a job."""
    answer = yield Request("GET", f"/v1/jobs/{job_id}")
    return Job.model_validate(answer.json())


def wait(job_id: str, on_change: Callable[[Job], None]) -> Operation[Job]:
    """Wait until a job has finished. ``on_change`` is called at every change."""
    answer = yield Request("GET", f"/v1/jobs/{job_id}")
    job = Job.model_validate(answer.json())
    on_change(job)
    while not job.finished:
        headers = {"If-None-Match": answer.headers["etag"], "Prefer": f"wait={WAIT_S}"}
        later = yield Request("GET", f"/v1/jobs/{job_id}", headers=headers)
        if later.status_code == _NOT_MODIFIED and job.queue is not None:  # its place in the queue is no part of its version
            later = yield Request("GET", f"/v1/jobs/{job_id}")
        if later.status_code != _NOT_MODIFIED:
            answer, job = later, Job.model_validate(later.json())
            on_change(job)
    return job


def list_jobs(
    statuses: Sequence[str], metadata: Mapping[str, str], name: str | None, tags: Sequence[str], *, limit: int
) -> Operation[list[Job]]:
    """List jobs, following pages."""
    wanted: Query = [("status", status) for status in statuses]
    wanted += [("tag", tag) for tag in tags] + ([] if name is None else [("name", name)])
    wanted += [(f"metadata[{key}]", value) for key, value in metadata.items()]
    return [Job.model_validate(item) for item in (yield from _pages("/v1/jobs", wanted, limit))]


def _pages(path: str, wanted: Query, limit: int) -> Operation[list[Any]]:
    """Read the items of a list up to a limit, page by page."""
    found: list[Any] = []
    after: str | None = None
    while len(found) < limit:
        query: Query = [*wanted, ("limit", min(_PAGE, limit - len(found))), *([] if after is None else [("after", after)])]
        page = (yield Request("GET", path, params=query)).json()
        found += page["data"]
        after = page["next"]
        if after is None:
            break
    return found


def cancel(job_id: str) -> Operation[Job]:
    """Ask for a cancellation."""
    answer = yield Request("POST", f"/v1/jobs/{job_id}/cancel")
    return Job.model_validate(answer.json())


def rename(job_id: str, change: Mapping[str, Any]) -> Operation[Job]:
    """Change what a job is called."""
    answer = yield Request("PATCH", f"/v1/jobs/{job_id}", json=change)
    return Job.model_validate(answer.json())


def retry(job_id: str) -> Operation[Job]:
    """Ask for another try of a failed job."""
    answer = yield Request("POST", f"/v1/jobs/{job_id}/retry", repeatable=False)
    return Job.model_validate(answer.json())


def derive(job_id: str, changes: Mapping[str, Any], *, idempotency_key: str | None) -> Operation[Job]:
    """Submit a job like another one, but for some fields."""
    headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
    answer = yield Request("POST", f"/v1/jobs/{job_id}/derive", json=changes, headers=headers)
    return Job.model_validate(answer.json())


def calibrate(request: PruneSpec | Mapping[str, Any], *, idempotency_key: str | None) -> Operation[Calibration]:
    """Submit a calibration; targets of a spec are left out, which a calibration does not take."""
    body = {name: value for name, value in body_of(request).items() if name not in _OF_A_RESULT}
    headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
    answer = yield Request("POST", "/v1/calibrations", json=body, headers=headers)
    return Calibration.model_validate(answer.json())


def calibration(calibration_id: str) -> Operation[Calibration]:
    """Read a calibration."""
    return Calibration.model_validate((yield Request("GET", f"/v1/calibrations/{calibration_id}")).json())


def calibrations(*, limit: int) -> Operation[list[Calibration]]:
    """List calibrations, following pages."""
    return [Calibration.model_validate(item) for item in (yield from _pages("/v1/calibrations", [], limit))]


def delete_calibration(calibration_id: str) -> Operation[None]:
    """Delete a calibration with its pieces."""
    yield Request("DELETE", f"/v1/calibrations/{calibration_id}")


def plan_derived(job_id: str, changes: Mapping[str, Any]) -> Operation[JobPrediction]:
    """Return what the service would do with a derived job."""
    answer = yield Request("POST", f"/v1/jobs/{job_id}/derive", json={**changes, "validate_only": True})
    return JobPrediction.model_validate(answer.json())


def delete(job_id: str) -> Operation[None]:
    """Delete a job."""
    yield Request("DELETE", f"/v1/jobs/{job_id}")


def change_many(action: str, wanted: Mapping[str, Any]) -> Operation[BulkChange]:
    """Cancel or try again many jobs; those of a request that are left are asked for again."""
    matched, changed = None, 0
    while True:
        answer = yield Request("POST", f"/v1/jobs/{action}", json=wanted, repeatable=action == "cancel")
        step = BulkChange.model_validate(answer.json())
        matched, changed = step.matched if matched is None else matched, changed + step.changed
        if not step.more:
            return BulkChange(matched=matched, changed=changed)


def events(job_id: str, *, after: int = 0) -> Operation[list[JobEvent]]:
    """Read the events after an event's id, following pages."""
    found: list[JobEvent] = []
    start: int | None = after
    while start is not None:
        page = (yield Request("GET", f"/v1/jobs/{job_id}/events", params=[("after", start)])).json()
        found += [JobEvent.model_validate(item) for item in page["data"]]
        start = page["next"]
    return found


@dataclass
class Following:
    """How far a client has followed a job's events."""

    job_id: str
    after: int = 0
    etag: str = ""
    finished: bool = False

    def more(self) -> Operation[list[JobEvent]]:
        """Wait for a change of the job, and return the new events."""
        headers = {"If-None-Match": self.etag, "Prefer": f"wait={WAIT_S}"} if self.etag else {}
        answer = yield Request("GET", f"/v1/jobs/{self.job_id}", headers=headers)
        if answer.status_code != _NOT_MODIFIED:
            self.etag = answer.headers["etag"]
            # The job is read before its events, so that at its end no event is missing.
            self.finished = Job.model_validate(answer.json()).finished
        found = yield from events(self.job_id, after=self.after)
        self.after = found[-1].id if found else self.after
        return found


def report(job_id: str) -> Operation[Report]:
    """Read the report of a finished job."""
    return Report.model_validate((yield Request("GET", f"/v1/jobs/{job_id}/report")).json())


def outlook(job_id: str) -> Operation[Outlook]:
    """Predict other budgets of a finished job."""
    return Outlook.model_validate((yield Request("GET", f"/v1/jobs/{job_id}/outlook")).json())


def output(job_id: str) -> Operation[str]:
    """Read what a job's attempts have printed, one after the other."""
    attempts = (yield Request("GET", f"/v1/jobs/{job_id}/output")).json()["data"]
    return "\n".join(str(own["text"]) for own in attempts)


def report_page(job_id: str) -> Operation[str]:
    """Read the report of a finished job as an HTML page."""
    answer = yield Request("GET", f"/v1/jobs/{job_id}/report", headers={"Accept": "text/html"})
    if not answer.headers["content-type"].startswith("text/html"):
        raise CoppiceError("the service has no page of this report")
    return answer.text


def artifacts(job_id: str) -> Operation[list[Artifact]]:
    """List the files of a bundle."""
    page = (yield Request("GET", f"/v1/jobs/{job_id}/artifacts")).json()
    return [Artifact.model_validate(item) for item in page["data"]]


def download(job_id: str, folder: Path, on_bytes: Callable[[int, int], None]) -> Operation[Path]:
    """Download a bundle, file by file."""
    files = yield from artifacts(job_id)
    _refuse_taken(files, folder)
    done, total = 0, sum(artifact.size for artifact in files)
    for artifact in files:
        before = done

        def tell(size: int, start: int = before) -> None:
            on_bytes(start + size, total)

        yield from _download_file(artifact, target_of(folder, artifact.path), tell)
        done += artifact.size
        on_bytes(done, total)
    return folder


def _refuse_taken(files: Sequence[Artifact], folder: Path) -> None:
    """Refuse a folder that holds another bundle: half of one among files of the other would look like a bundle."""
    for artifact in files:
        target = target_of(folder, artifact.path)
        if target.exists() and not (target.is_file() and sha256_of(target) == artifact.sha256):
            raise FolderTaken(f"{folder} holds another {artifact.path} already; give a new folder, or remove that one")


def _download_file(artifact: Artifact, target: Path, on_size: Callable[[int], None]) -> Operation[None]:
    if target.is_file() and sha256_of(target) == artifact.sha256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    yield Fetch(artifact, partial, on_size)
    if sha256_of(partial) != artifact.sha256:
        partial.unlink()
        raise DownloadCorrupt(f"{artifact.path} arrived damaged; download it again")
    partial.replace(target)


def upload(kind: str, archive: Path) -> Operation[Upload]:
    """Upload a packed model or data set."""
    answer = yield Request("POST", f"/v1/{kind}s", upload=archive, headers={"Content-Type": "application/x-tar"})
    return Upload.model_validate(answer.json())


def uploaded(kind: str, upload_id: str) -> Operation[Upload]:
    """Read an upload."""
    return Upload.model_validate((yield Request("GET", f"/v1/{kind}s/{upload_id}")).json())


def session() -> Operation[Session]:
    """Read who asks."""
    return Session.model_validate((yield Request("GET", "/v1/session")).json())


def end_session() -> Operation[None]:
    """End the login of a command line."""
    yield Request("DELETE", "/v1/session")


def body_of(spec: PruneSpec | Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec as a JSON object."""
    return spec.model_dump(mode="json") if isinstance(spec, PruneSpec) else dict(spec)
