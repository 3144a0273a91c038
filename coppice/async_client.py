"""The Python client for asyncio: the operations of `coppice.Client`, awaited.

>>> async with AsyncClient("http://127.0.0.1:8000") as client:
...     job = await client.prune("org/name", "glue/sst2", sparsity=0.5)
...     await (await job.wait()).download(Path("bundle"))
"""

from __future__ import annotations

import asyncio
import builtins
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx2
from tenacity import AsyncRetrying, retry_if_exception

from coppice import operations
from coppice.administration import AsyncAdministration
from coppice.client import OnBytes, OnChange
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
from coppice.types import Artifact, BulkChange, Calibration, Job, JobEvent, JobPrediction, Outlook, Session, Upload
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec

Result = TypeVar("Result")

_CHUNK = 1 << 20


def _ignore(*_told: object) -> None:
    pass


class AsyncClient(AsyncAdministration):
    """A connection to a service; see `coppice.Client` for the arguments."""

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, retry_for_s: float = RETRY_FOR_S) -> None:
        self._url = address_of(url)
        self._http = httpx2.AsyncClient(
            base_url=self._url, timeout=TIMEOUT, headers=headers_for(api_key, self._url), trust_env=is_outside(self._url)
        )
        self._policy = RetryPolicy(retry_for_s)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def prune(
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
    ) -> AsyncJobHandle:
        """Submit a job and return its handle; see `Client.prune`."""
        body = job_body(
            (await self.upload_model(model)).id if isinstance(model, Path) else model,
            task,
            sparsity=sparsity,
            target=target,
            data=(await self.upload_dataset(data)).id if isinstance(data, Path) else data,
            method=method,
            slices=slices,
            also=also,
            options=options,
            name=name,
            tags=tags,
            metadata=metadata,
            priority=priority,
        )
        return AsyncJobHandle(self, await self.submit(body, job_id=job_id))

    async def submit(
        self, spec: PruneSpec | Mapping[str, Any], *, job_id: str | None = None, idempotency_key: str | None = None
    ) -> Job:
        """Submit a job. Either argument makes it safe to submit again; without both, a key is made for this call."""
        return await self._run(operations.submit(spec, job_id=job_id, idempotency_key=idempotency_key))

    async def plan(self, spec: PruneSpec | Mapping[str, Any]) -> JobPrediction:
        """Return what the service would do with a spec, and submit nothing."""
        return await self._run(operations.plan(spec))

    async def job(self, job_id: str) -> AsyncJobHandle:
        """Return the handle of a job."""
        return AsyncJobHandle(self, await self.get(job_id))

    async def get(self, job_id: str) -> Job:
        """Read a job."""
        return await self._run(operations.get(job_id))

    async def wait(self, job_id: str, on_change: OnChange = _ignore) -> Job:
        """Wait until a job has finished, successfully or not. ``on_change`` is called at every change."""
        return await self._run(operations.wait(job_id, on_change))

    async def list(
        self,
        *,
        statuses: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        limit: int = 20,
    ) -> list[Job]:
        """List jobs, newest first, following pages up to ``limit``; see `Client.list`."""
        return await self._run(operations.list_jobs(statuses, metadata or {}, name, tags, limit=limit))

    async def cancel(self, job_id: str) -> Job:
        """Ask for a cancellation."""
        return await self._run(operations.cancel(job_id))

    async def rename(self, job_id: str, **change: Any) -> Job:
        """Change what a job is called: ``name``, ``tags``. What is not given stays."""
        return await self._run(operations.rename(job_id, change))

    async def retry(self, job_id: str) -> Job:
        """Ask for another try of a failed job."""
        return await self._run(operations.retry(job_id))

    async def derive(self, job_id: str, *, idempotency_key: str | None = None, **changes: Any) -> Job:
        """Submit a job like another one. ``changes`` are fields of the API, such as ``target`` or ``artifacts``."""
        return await self._run(operations.derive(job_id, changes, idempotency_key=idempotency_key))

    async def plan_derived(self, job_id: str, **changes: Any) -> JobPrediction:
        """Return what the service would do with such a job, and submit nothing."""
        return await self._run(operations.plan_derived(job_id, changes))

    async def calibrate(self, spec: PruneSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Calibration:
        """Submit a calibration: what is known of the dense model, for jobs to start from. Targets of the spec do not matter.

        `wait` and `cancel` take its id; a job names it as ``calibration_id``.
        """
        return await self._run(operations.calibrate(spec, idempotency_key=idempotency_key))

    async def calibration(self, calibration_id: str) -> Calibration:
        """Read a calibration."""
        return await self._run(operations.calibration(calibration_id))

    async def calibrations(self, *, limit: int = 20) -> builtins.list[Calibration]:
        """List calibrations, newest first, following pages up to ``limit``."""
        return await self._run(operations.calibrations(limit=limit))

    async def delete_calibration(self, calibration_id: str) -> None:
        """Delete a calibration with its pieces. Jobs that name it and have not begun gather anew what they need."""
        await self._run(operations.delete_calibration(calibration_id))

    async def cancel_all(self, *, dry_run: bool = False, **wanted: Any) -> BulkChange:
        """Cancel all jobs that are like ``wanted``: ``model``, ``metadata``, ``status`` (queued, running), or ``all=True``."""
        return await self._run(operations.change_many("cancel", {"dry_run": dry_run, **wanted}))

    async def retry_all(self, *, dry_run: bool = False, **wanted: Any) -> BulkChange:
        """Ask for another try of all failed jobs that are like ``wanted``: ``model``, ``metadata``, or ``all=True``."""
        return await self._run(operations.change_many("retry", {"dry_run": dry_run, **wanted}))

    async def delete(self, job_id: str) -> None:
        """Delete a job that no worker has, with its events, report and files. It cannot be undone."""
        await self._run(operations.delete(job_id))

    async def events(self, job_id: str) -> builtins.list[JobEvent]:
        """Read the events so far, oldest first."""
        return await self._run(operations.events(job_id))

    async def follow(self, job_id: str) -> AsyncIterator[JobEvent]:
        """Read the events so far and those to come, until the job has finished."""
        following = Following(job_id)
        while not following.finished:
            for event in await self._run(following.more()):
                yield event

    async def report(self, job_id: str) -> Report:
        """Read the report of a finished job."""
        return await self._run(operations.report(job_id))

    async def outlook(self, job_id: str) -> Outlook:
        """Predict what other budgets of a finished job would bring: size, speed and divergence."""
        return await self._run(operations.outlook(job_id))

    async def output(self, job_id: str) -> str:
        """Read what a job's process has printed, and when its stages began."""
        return await self._run(operations.output(job_id))

    async def report_page(self, job_id: str) -> str:
        """Read the report of a finished job as an HTML page."""
        return await self._run(operations.report_page(job_id))

    async def artifacts(self, job_id: str) -> builtins.list[Artifact]:
        """List the files of a bundle."""
        return await self._run(operations.artifacts(job_id))

    async def download(self, job_id: str, folder: Path, on_bytes: OnBytes = _ignore) -> Path:
        """Download a bundle; see `Client.download`."""
        return await self._run(operations.download(job_id, folder, on_bytes))

    async def session(self) -> Session:
        """Read who you are there; see `Client.session`."""
        return await self._run(operations.session())

    async def end_session(self) -> None:
        """End what ``coppice login`` has begun. Keys are revoked instead."""
        return await self._run(operations.end_session())

    async def upload_model(self, folder: Path) -> Upload:
        """Upload a folder with config.json, safetensors weights and tokenizer. The same content has the same id."""
        return await self._upload("model", folder)

    async def uploaded_model(self, upload_id: str) -> Upload | None:
        """Read an uploaded model; None where you have uploaded none of this id."""
        try:
            return await self._run(operations.uploaded("model", upload_id))
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def upload_dataset(self, folder: Path) -> Upload:
        """Upload a folder with train and validation as Parquet, JSON Lines or CSV. The same content has the same id."""
        return await self._upload("dataset", folder)

    async def _upload(self, kind: str, folder: Path) -> Upload:
        with tempfile.TemporaryDirectory(prefix="coppice-upload-") as name:
            archive = Path(name) / "archive.tar"
            await asyncio.to_thread(pack, folder, archive)
            return await self._run(operations.upload(kind, archive))

    async def _run(self, operation: Operation[Result]) -> Result:
        try:
            step = next(operation)
            while True:
                response = await self._perform(step)
                with understood(self._url):
                    step = operation.send(response)
        except StopIteration as end:
            return end.value

    async def _perform(self, step: Request | Fetch) -> httpx2.Response:
        repeatable = isinstance(step, Fetch) or step.repeatable
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: self._policy.is_worth_it(error, repeatable=repeatable)),
            wait=self._policy.pause_s,
            stop=self._policy.is_over,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt, translated(self._url):
                return await (self._fetch(step) if isinstance(step, Fetch) else self._send(step))
        raise AssertionError("unreachable: the last attempt raises")

    async def _send(self, request: Request) -> httpx2.Response:
        path, headers = request.path, request.headers
        if request.upload is not None:
            size = {"Content-Length": str(request.upload.stat().st_size)}
            content = _chunks(request.upload)
            response = await self._http.request(request.method, path, headers={**headers, **size}, content=content)
        else:
            response = await self._http.request(request.method, path, json=request.json, params=request.params, headers=headers)
        self._policy.has_answered = True
        if response.status_code >= 400:
            raise api_error(response)
        return response

    async def _fetch(self, fetch: Fetch) -> httpx2.Response:
        async with self._http.stream("GET", fetch.path, headers=fetch.headers()) as response:
            self._policy.has_answered = True
            if response.status_code not in (200, 206):
                await response.aread()
                raise api_error(response)
            with fetch.open(response.status_code) as file:
                async for chunk in response.aiter_bytes():
                    fetch.write(file, chunk)
            return response


class AsyncJobHandle:
    """A job of a service, and the operations on it.

    Attributes:
        latest: The job as last seen.
    """

    def __init__(self, client: AsyncClient, job: Job) -> None:
        self._client = client
        self.latest = job

    @property
    def id(self) -> str:
        """The job's id."""
        return self.latest.id

    async def wait(self, on_change: OnChange = _ignore) -> AsyncJobHandle:
        """Wait until the job has succeeded. ``on_change`` is called at every change.

        Raises:
            JobUnsuccessful: The job has failed or was cancelled.
        """
        self.latest = await self._client.wait(self.id, on_change)
        if self.latest.status != "succeeded":
            raise JobUnsuccessful(self.latest)
        return self

    async def download(self, folder: Path | str, on_bytes: OnBytes = _ignore) -> Path:
        """Download the bundle; see `Client.download`."""
        return await self._client.download(self.id, Path(folder), on_bytes)

    async def report(self) -> Report:
        """Read the report."""
        return await self._client.report(self.id)

    def events(self) -> AsyncIterator[JobEvent]:
        """Follow the events until the job has finished."""
        return self._client.follow(self.id)

    async def cancel(self) -> AsyncJobHandle:
        """Ask for a cancellation."""
        self.latest = await self._client.cancel(self.id)
        return self

    async def retry(self) -> AsyncJobHandle:
        """Ask for another try of the failed job."""
        self.latest = await self._client.retry(self.id)
        return self

    async def derive(self, **changes: Any) -> AsyncJobHandle:
        """Submit a job like this one, with other targets or artifacts; see `Client.derive`."""
        return AsyncJobHandle(self._client, await self._client.derive(self.id, **changes))


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
