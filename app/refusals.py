"""Refusals of requests. Only the edge knows their status in HTTP."""

from __future__ import annotations


class RequestError(Exception):
    """Base: a stable code, a sentence that says what would be right, and where (JSON pointer or parameter)."""

    def __init__(self, code: str, message: str, pointer: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer


class Refused(RequestError):
    """The request is well-formed but cannot be carried out."""


class NotFound(RequestError):
    """There is no such thing, or it is somebody else's."""


class Conflict(RequestError):
    """The state of the job does not allow it."""


class QuotaExceeded(RequestError):
    """The owner has as many jobs in the queue as allowed; later there will be room."""
