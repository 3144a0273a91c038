"""The Python client: a thin layer over HTTP. Needs no torch.

>>> from coppice import Client
>>> with Client("http://127.0.0.1:8000") as client:
...     job = client.wait(client.submit({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5}).id)
...     client.download(job.id, Path("bundle"))
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any
from uuid import uuid4

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from coppice.errors import ApiError, DownloadCorrupt, FolderTaken, ServiceUnreachable
from coppice.types import Artifact, Job, JobEvent
from pruning_core.report import Report
from pruning_core.spec import PruneSpec

DEFAULT_URL = "http://127.0.0.1:8000"

_WAIT_S = 20
_TIMEOUT = httpx2.Timeout(10, read=_WAIT_S + 20)
_RETRY_FOR_S = 30
# A service that has never answered is more likely not there than restarting.
_FIRST_ANSWER_S = 3
_RETRIED = frozenset({429, 502, 503, 504})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Client:
    """A connection to a service.

    Args:
        url: Where it is.
        retry_for_s: How long a request is tried again while the service is busy, restarting or out of reach.
    """

    def __init__(self, url: str = DEFAULT_URL, *, retry_for_s: float = _RETRY_FOR_S) -> None:
        # A proxy of the environment is for the world outside; a service on this host is never behind one.
        outside = httpx2.URL(url).host not in _LOOPBACK
        self._http = httpx2.Client(
            base_url=url.rstrip("/"), timeout=_TIMEOUT, headers={"Accept": "application/json"}, trust_env=outside
        )
        self._retry_for_s = retry_for_s
        self._has_answered = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, spec: PruneSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submit a job. A key of its own makes it safe to try again when the answer was lost on the way."""
        body = spec.model_dump(mode="json") if isinstance(spec, PruneSpec) else dict(spec)
        key = idempotency_key or uuid4().hex
        return Job.model_validate(self._request("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key}).json())

    def get(self, job_id: str) -> Job:
        """Read a job."""
        return Job.model_validate(self._request("GET", f"/v1/jobs/{job_id}").json())

    def wait(self, job_id: str, on_change: Callable[[Job], None] = lambda _job: None) -> Job:
        """Wait until a job has finished; told of every change on the way."""
        response = self._request("GET", f"/v1/jobs/{job_id}")
        job = Job.model_validate(response.json())
        on_change(job)
        while not job.finished:
            headers = {"If-None-Match": response.headers["etag"], "Prefer": f"wait={_WAIT_S}"}
            answer = self._request("GET", f"/v1/jobs/{job_id}", headers=headers)
            if answer.status_code != 304:
                response, job = answer, Job.model_validate(answer.json())
                on_change(job)
        return job

    def list(self, *, statuses: Sequence[str] = (), limit: int = 20) -> list[Job]:
        """List jobs, newest first, following pages up to ``limit``."""
        jobs: list[Job] = []
        after: str | None = None
        while len(jobs) < limit:
            query: list[tuple[str, str | int]] = [("status", status) for status in statuses]
            query.append(("limit", min(100, limit - len(jobs))))
            if after is not None:
                query.append(("after", after))
            page = self._request("GET", "/v1/jobs", params=query).json()
            jobs += [Job.model_validate(item) for item in page["data"]]
            after = page["next"]
            if after is None:
                break
        return jobs

    def cancel(self, job_id: str) -> Job:
        """Ask for a cancellation."""
        return Job.model_validate(self._request("POST", f"/v1/jobs/{job_id}/cancel").json())

    def events(self, job_id: str) -> Iterator[JobEvent]:
        """Read the events so far, oldest first."""
        after = 0
        while True:
            page = self._request("GET", f"/v1/jobs/{job_id}/events", params={"after": after}).json()
            yield from (JobEvent.model_validate(item) for item in page["data"])
            if page["next"] is None:
                return
            after = page["next"]

    def report(self, job_id: str) -> Report:
        """Read the report of a finished job."""
        return Report.model_validate(self._request("GET", f"/v1/jobs/{job_id}/report").json())

    def artifacts(self, job_id: str) -> list[Artifact]:
        """List the files of a bundle."""
        page = self._request("GET", f"/v1/jobs/{job_id}/artifacts").json()
        return [Artifact.model_validate(item) for item in page["data"]]

    def download(self, job_id: str, folder: Path, on_bytes: Callable[[int, int], None] = lambda _done, _total: None) -> Path:
        """Download a bundle. Files of it that are there already are kept, broken ones resumed, all checked by their sha256.

        Args:
            job_id: A finished job.
            folder: Where to; created if need be.
            on_bytes: Told how many bytes of how many are there.

        Raises:
            FolderTaken: The folder holds other files under the same names: those of another bundle. Nothing is touched.
            DownloadCorrupt: A file does not have the sha256 that the service says.
        """
        artifacts = self.artifacts(job_id)
        _refuse_taken(artifacts, folder)
        done, total = 0, sum(artifact.size for artifact in artifacts)
        for artifact in artifacts:
            before = done

            def tell(size: int, start: int = before) -> None:
                on_bytes(start + size, total)

            self._download_file(artifact, _target(folder, artifact.path), tell)
            done += artifact.size
            on_bytes(done, total)
        return folder

    def _download_file(self, artifact: Artifact, target: Path, on_size: Callable[[int], None]) -> None:
        if target.is_file() and _sha256(target) == artifact.sha256:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.part")
        for attempt in self._retrying():
            with attempt:
                self._fetch(artifact, partial, on_size)
        if _sha256(partial) != artifact.sha256:
            partial.unlink()
            raise DownloadCorrupt(f"{artifact.path} arrived damaged; download it again")
        partial.replace(target)

    def _fetch(self, artifact: Artifact, partial: Path, on_size: Callable[[int], None]) -> None:
        have = partial.stat().st_size if partial.is_file() else 0
        if have >= artifact.size > 0:
            have = 0
        headers = {"Range": f"bytes={have}-", "If-Range": f'"{artifact.sha256}"'} if have else {}
        with _translated(), self._http.stream("GET", artifact.url, headers=headers) as response:
            if response.status_code not in (200, 206):
                response.read()
                raise _api_error(response)
            have = have if response.status_code == 206 else 0
            with partial.open("ab" if have else "wb") as file:
                for chunk in response.iter_bytes():
                    have += file.write(chunk)
                    on_size(have)

    def _request(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        for attempt in self._retrying():
            with attempt, _translated():
                response = self._http.request(method, path, json=json, params=params, headers=headers)
                self._has_answered = True
                if response.status_code >= 400:
                    raise _api_error(response)
                return response
        raise AssertionError("unreachable: the last attempt raises")

    def _given_up(self, state: RetryCallState) -> bool:
        limit_s = self._retry_for_s if self._has_answered else min(self._retry_for_s, _FIRST_ANSWER_S)
        return (state.seconds_since_start or 0) >= limit_s

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(_worth_another_try),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            stop=self._given_up,
            reraise=True,
        )


def _refuse_taken(artifacts: Sequence[Artifact], folder: Path) -> None:
    """Half of one bundle among files of another would look like a bundle."""
    for artifact in artifacts:
        target = _target(folder, artifact.path)
        if target.exists() and not (target.is_file() and _sha256(target) == artifact.sha256):
            raise FolderTaken(f"{folder} holds another {artifact.path} already; give a new folder, or remove that one")


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except httpx2.TransportError as error:
        raise ServiceUnreachable(f"no answer from the service ({type(error).__name__}); is it running?") from error


def _worth_another_try(error: BaseException) -> bool:
    return isinstance(error, ServiceUnreachable) or (isinstance(error, ApiError) and error.status in _RETRIED)


def _api_error(response: httpx2.Response) -> ApiError:
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = "unknown", f"the service answered {response.status_code} {response.reason_phrase}"
    return ApiError(response.status_code, code, detail, response.headers.get("x-request-id", ""))


def _target(folder: Path, path: str) -> Path:
    """Give the place of a file of the bundle; a service must not be able to write elsewhere."""
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/"):
        raise DownloadCorrupt("the service names a file outside the bundle")
    return folder.joinpath(*parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
