"""The Python client: a thin layer over HTTP that needs no torch.

>>> from coppice import Client
>>> with Client("http://127.0.0.1:8000") as client:
...     client.prune("org/name", "glue/sst2", sparsity=0.5).wait().download(Path("bundle"))
"""

from __future__ import annotations

import builtins
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx2
from tenacity import Retrying, retry_if_exception

from coppice import operations
from coppice.administration import Administration
from coppice.connection import (
    DEFAULT_URL,
    RETRY_FOR_S,
    TIMEOUT,
    RetryPolicy,
    address_of,
    api_error,
    headers_for,
    is_outside,
    translated,
    understood,
)
from coppice.errors import ApiError, JobUnsuccessful
from coppice.files import Fetch, pack
from coppice.operations import Following, Operation, Request
from coppice.requests import job_body
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

__all__ = ["DEFAULT_URL", "Client", "JobHandle"]

Result = TypeVar("Result")
OnChange = Callable[[Job], None]
OnBytes = Callable[[int, int], None]


def _ignore(*_told: object) -> None:
    pass


class Client(Administration):
    """A connection to a service.

    Args:
        url: Address of the service.
        api_key: ``cpk_...``; by default the value of the environment variable COPPICE_API_KEY, or else what ``coppice login``
            has kept for the address.
        retry_for_s: Seconds for which a request is tried again while the service is busy, restarting or out of reach.
    """

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, retry_for_s: float = RETRY_FOR_S) -> None:
        self._url = address_of(url)
        self._http = httpx2.Client(
            base_url=self._url, timeout=TIMEOUT, headers=headers_for(api_key, self._url), trust_env=is_outside(self._url)
        )
        self._policy = RetryPolicy(retry_for_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def prune(
        self,
        model: str | Path,
        task: str | Mapping[str, Any],
        *,
        sparsity: float | None = None,
        target: Mapping[str, Any] | None = None,
        data: str | Path | None = None,
        method: str | Mapping[str, Any] | None = None,
        slices: Sequence[str] | None = None,
        also: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        priority: int | None = None,
        job_id: str | None = None,
    ) -> JobHandle:
        """Submit a job and return its handle: ``client.prune(...).wait().download(Path("bundle"))``.

        Args:
            model: A Hub id, a path on the service's host, or the id of an upload. A local `Path` is uploaded.
            task: A GLUE name such as ``glue/sst2``, or an object with type, dataset, columns and metric.
            sparsity: Fraction of the prunable weights to remove.
            target: Another target instead of the sparsity, e.g. ``{"metric": "macs", "keep": 0.5}``.
            data: The task's data, named as the model is. A local `Path` is uploaded.
            method: Name or object; None: the service's default.
            slices: Columns of the validation split by whose values the rows are sliced.
            also: Further evaluation sets, e.g. ``[{"name": "reviews", "data": "dst_..."}]``.
            options: Further fields of the spec, e.g. ``{"quality_floor": 0.99, "seed": 1}``.
            name: What you call the job.
            tags: Up to 16 words by which jobs are found together.
            metadata: Up to 16 strings of your own, to find the job by.
            priority: 0 to 9; higher runs first.
            job_id: An id of your own choice. Submitting it twice makes one job.
        """
        body = job_body(
            self.upload_model(model).id if isinstance(model, Path) else model,
            task,
            sparsity=sparsity,
            target=target,
            data=self.upload_dataset(data).id if isinstance(data, Path) else data,
            method=method,
            slices=slices,
            also=also,
            options=options,
            name=name,
            tags=tags,
            metadata=metadata,
            priority=priority,
        )
        return JobHandle(self, self.submit(body, job_id=job_id))

    def submit(
        self, spec: PruneSpec | Mapping[str, Any], *, job_id: str | None = None, idempotency_key: str | None = None
    ) -> Job:
        """Submit a job. Either argument makes it safe to submit again; without both, a key is made for this call."""
        return self._run(operations.submit(spec, job_id=job_id, idempotency_key=idempotency_key))

    def plan(self, spec: PruneSpec | Mapping[str, Any]) -> JobPrediction:
        """Return what the service would do with a spec, and submit nothing."""
        return self._run(operations.plan(spec))

    def job(self, job_id: str) -> JobHandle:
        """Return the handle of a job."""
        return JobHandle(self, self.get(job_id))

    def get(self, job_id: str) -> Job:
        """Read a job."""
        return self._run(operations.get(job_id))

    def wait(self, job_id: str, on_change: OnChange = _ignore) -> Job:
        """Wait until a job has finished, successfully or not. ``on_change`` is called at every change."""
        return self._run(operations.wait(job_id, on_change))

    def list(
        self,
        *,
        statuses: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        limit: int = 20,
    ) -> list[Job]:
        """List jobs, newest first, following pages up to ``limit``: with ``name`` in their names, and with all ``tags``."""
        return self._run(operations.list_jobs(statuses, metadata or {}, name, tags, limit=limit))

    def cancel(self, job_id: str) -> Job:
        """Ask for a cancellation."""
        return self._run(operations.cancel(job_id))

    def rename(self, job_id: str, **change: Any) -> Job:
        """Change what a job is called: ``name``, ``tags``. What is not given stays."""
        return self._run(operations.rename(job_id, change))

    def retry(self, job_id: str) -> Job:
        """Ask for another try of a failed job."""
        return self._run(operations.retry(job_id))

    def derive(self, job_id: str, *, idempotency_key: str | None = None, **changes: Any) -> Job:
        """Submit a job like another one. ``changes`` are fields of the API, such as ``target`` or ``artifacts``."""
        return self._run(operations.derive(job_id, changes, idempotency_key=idempotency_key))

    def plan_derived(self, job_id: str, **changes: Any) -> JobPrediction:
        """Return what the service would do with such a job, and submit nothing."""
        return self._run(operations.plan_derived(job_id, changes))

    def calibrate(self, spec: PruneSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Calibration:
        """Submit a calibration: what is known of the dense model, for jobs to start from. Targets of the spec do not matter.

        `wait` and `cancel` take its id; a job names it as ``calibration_id``.
        """
        return self._run(operations.calibrate(spec, idempotency_key=idempotency_key))

    def calibration(self, calibration_id: str) -> Calibration:
        """Read a calibration."""
        return self._run(operations.calibration(calibration_id))

    def calibrations(self, *, limit: int = 20) -> builtins.list[Calibration]:
        """List calibrations, newest first, following pages up to ``limit``."""
        return self._run(operations.calibrations(limit=limit))

    def delete_calibration(self, calibration_id: str) -> None:
        """Delete a calibration with its pieces. Jobs that name it and have not begun gather anew what they need."""
        self._run(operations.delete_calibration(calibration_id))

    def cancel_all(self, *, dry_run: bool = False, **wanted: Any) -> BulkChange:
        """Cancel all jobs that are like ``wanted``: ``model``, ``metadata``, ``status`` (queued, running), or ``all=True``."""
        return self._run(operations.change_many("cancel", {"dry_run": dry_run, **wanted}))

    def retry_all(self, *, dry_run: bool = False, **wanted: Any) -> BulkChange:
        """Ask for another try of all failed jobs that are like ``wanted``: ``model``, ``metadata``, or ``all=True``."""
        return self._run(operations.change_many("retry", {"dry_run": dry_run, **wanted}))

    def delete(self, job_id: str) -> None:
        """Delete a job that no worker has, with its events, report and files. It cannot be undone."""
        self._run(operations.delete(job_id))

    def events(self, job_id: str) -> Iterator[JobEvent]:
        """Read the events so far, oldest first."""
        yield from self._run(operations.events(job_id))

    def follow(self, job_id: str) -> Iterator[JobEvent]:
        """Read the events so far and those to come, until the job has finished."""
        following = Following(job_id)
        while not following.finished:
            yield from self._run(following.more())

    def report(self, job_id: str) -> Report:
        """Read the report of a finished job."""
        return self._run(operations.report(job_id))

    def outlook(self, job_id: str) -> Outlook:
        """Predict what other budgets of a finished job would bring: size, speed and divergence."""
        return self._run(operations.outlook(job_id))

    def output(self, job_id: str) -> str:
        """Read what a job's process has printed, and when its stages began."""
        return self._run(operations.output(job_id))

    def report_page(self, job_id: str) -> str:
        """Read the report of a finished job as an HTML page."""
        return self._run(operations.report_page(job_id))

    def artifacts(self, job_id: str) -> builtins.list[Artifact]:
        """List the files of a bundle."""
        return self._run(operations.artifacts(job_id))

    def download(self, job_id: str, folder: Path, on_bytes: OnBytes = _ignore) -> Path:
        """Download a bundle. Complete files are kept, interrupted downloads resumed, and all files checked by their sha256.

        Args:
            job_id: Id of a finished job.
            folder: Folder to write to; created if need be.
            on_bytes: Called with the bytes that have arrived and the bytes of the whole bundle.

        Raises:
            FolderTaken: The folder holds a file of the same name and other content, as of another bundle. Nothing is touched.
            DownloadCorrupt: A file has another sha256 than the service says, or its path leads outside the bundle.
        """
        return self._run(operations.download(job_id, folder, on_bytes))

    def session(self) -> Session:
        """Read who you are there: by which key or as which person, for which tenant, and with which scopes."""
        return self._run(operations.session())

    def end_session(self) -> None:
        """End what ``coppice login`` has begun. Keys are revoked instead."""
        return self._run(operations.end_session())

    def upload_model(self, folder: Path) -> Upload:
        """Upload a folder with config.json, safetensors weights and tokenizer. The same content has the same id."""
        return self._upload("model", folder)

    def uploaded_model(self, upload_id: str) -> Upload | None:
        """Read an uploaded model; None where you have uploaded none of this id."""
        try:
            return self._run(operations.uploaded("model", upload_id))
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def upload_dataset(self, folder: Path) -> Upload:
        """Upload train and validation as Parquet, Arrow, JSON or CSV, a folder or a file. The same content has the same id."""
        return self._upload("dataset", folder)

    def _upload(self, kind: str, folder: Path) -> Upload:
        with tempfile.TemporaryDirectory(prefix="coppice-upload-") as name:
            archive = Path(name) / "archive.tar"
            pack(folder, archive)
            return self._run(operations.upload(kind, archive))

    def _run(self, operation: Operation[Result]) -> Result:
        try:
            step = next(operation)
            while True:
                response = self._perform(step)
                with understood(self._url):
                    step = operation.send(response)
        except StopIteration as end:
            return end.value

    def _perform(self, step: Request | Fetch) -> httpx2.Response:
        repeatable = isinstance(step, Fetch) or step.repeatable
        retrying = Retrying(
            retry=retry_if_exception(lambda error: self._policy.is_worth_it(error, repeatable=repeatable)),
            wait=self._policy.pause_s,
            stop=self._policy.is_over,
            reraise=True,
        )
        for attempt in retrying:
            with attempt, translated(self._url):
                return self._fetch(step) if isinstance(step, Fetch) else self._send(step)
        raise AssertionError("unreachable: the last attempt raises")

    def _send(self, request: Request) -> httpx2.Response:
        path, headers = request.path, request.headers
        if request.upload is not None:
            size = {"Content-Length": str(request.upload.stat().st_size)}
            with request.upload.open("rb") as file:
                response = self._http.request(request.method, path, headers={**headers, **size}, content=file)
        else:
            response = self._http.request(request.method, path, json=request.json, params=request.params, headers=headers)
        self._policy.has_answered = True
        if response.status_code >= 400:
            raise api_error(response)
        return response

    def _fetch(self, fetch: Fetch) -> httpx2.Response:
        with self._http.stream("GET", fetch.path, headers=fetch.headers()) as response:
            self._policy.has_answered = True
            if response.status_code not in (200, 206):
                response.read()
                raise api_error(response)
            with fetch.open(response.status_code) as file:
                for chunk in response.iter_bytes():
                    fetch.write(file, chunk)
            return response


class JobHandle:
    """A job of a service, and the operations on it.

    Attributes:
        latest: The job as last seen.
    """

    def __init__(self, client: Client, job: Job) -> None:
        self._client = client
        self.latest = job

    @property
    def id(self) -> str:
        """The job's id."""
        return self.latest.id

    def wait(self, on_change: OnChange = _ignore) -> JobHandle:
        """Wait until the job has succeeded. ``on_change`` is called at every change.

        Raises:
            JobUnsuccessful: The job has failed or was cancelled.
        """
        self.latest = self._client.wait(self.id, on_change)
        if self.latest.status != "succeeded":
            raise JobUnsuccessful(self.latest)
        return self

    def download(self, folder: Path | str, on_bytes: OnBytes = _ignore) -> Path:
        """Download the bundle; see `Client.download`."""
        return self._client.download(self.id, Path(folder), on_bytes)

    def report(self) -> Report:
        """Read the report."""
        return self._client.report(self.id)

    def events(self) -> Iterator[JobEvent]:
        """Follow the events until the job has finished."""
        return self._client.follow(self.id)

    def cancel(self) -> JobHandle:
        """Ask for a cancellation."""
        self.latest = self._client.cancel(self.id)
        return self

    def retry(self) -> JobHandle:
        """Ask for another try of the failed job."""
        self.latest = self._client.retry(self.id)
        return self

    def derive(self, **changes: Any) -> JobHandle:
        """Submit a job like this one, with other targets or artifacts; see `Client.derive`."""
        return JobHandle(self._client, self._client.derive(self.id, **changes))
