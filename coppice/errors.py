"""Errors of the client."""

from __future__ import annotations

from dataclasses import dataclass

from coppice.types import Job


class CoppiceError(Exception):
    """Base of the client's errors."""


class BadArgument(CoppiceError, ValueError):
    """The address or the key of a client is none."""


@dataclass
class ApiError(CoppiceError):
    """The service refused a request (RFC 9457).

    Attributes:
        status: HTTP status.
        code: Stable code, e.g. ``invalid_request``.
        detail: What was wrong and what would be right.
        request_id: Id of the request, for questions to the operator.
        retry_after_s: Seconds after which to ask again; None where the service names none.
        errors: What was wrong with which field: JSON pointers into the body, or names of parameters, and sentences.
    """

    status: int
    code: str
    detail: str
    request_id: str = ""
    retry_after_s: float | None = None
    errors: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return detail and code in one line."""
        return f"{self.detail} ({self.code})"


class ServiceUnreachable(CoppiceError):
    """Nothing answers at the address.

    Attributes:
        was_sent: Whether the request may have arrived.
    """

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class AnswerUnreadable(CoppiceError):
    """What answers at the address is not Coppice, or another version of it."""


class FolderTaken(CoppiceError):
    """The folder to download to holds a file of the same name and other content."""


class DownloadCorrupt(CoppiceError):
    """A file has another sha256 than the service says, or a path outside the bundle or on another host."""


class JobUnsuccessful(CoppiceError):
    """A job has failed or was cancelled, where success was waited for.

    Attributes:
        job: The job in its final state.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        if job.error is None:
            super().__init__(f"the job was {job.status}")
        else:
            where = f"{job.error.param}: " if job.error.param else ""
            super().__init__(f"the job {job.status}: {where}{job.error.message} ({job.error.code})")
