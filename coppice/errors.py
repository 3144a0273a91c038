"""What can go wrong for a client."""

from __future__ import annotations

from dataclasses import dataclass

from coppice.types import Job


class CoppiceError(Exception):
    """Base of the client's errors."""


@dataclass
class ApiError(CoppiceError):
    """The service refused a request (RFC 9457).

    Attributes:
        status: HTTP status.
        code: Stable code, e.g. ``invalid_request``.
        detail: What was wrong and what would be right.
        request_id: What to tell the operator.
        retry_after_s: When the service would like to be asked again, where it said so.
    """

    status: int
    code: str
    detail: str
    request_id: str = ""
    retry_after_s: float | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.detail} ({self.code})"


class ServiceUnreachable(CoppiceError):
    """Nothing answers at the address.

    Attributes:
        was_sent: Whether the request may have arrived all the same.
    """

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class FolderTaken(CoppiceError):
    """The folder to download to holds other files under the same names."""


class DownloadCorrupt(CoppiceError):
    """A file arrived with another sha256 than the service says it has."""


class JobUnsuccessful(CoppiceError):
    """A job that was waited for has failed or was cancelled.

    Attributes:
        job: The job as it ended.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        if job.error is None:
            super().__init__(f"the job was {job.status}")
        else:
            where = f"{job.error.param}: " if job.error.param else ""
            super().__init__(f"the job {job.status}: {where}{job.error.message} ({job.error.code})")
