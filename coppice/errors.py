"""What can go wrong for a client."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    status: int
    code: str
    detail: str
    request_id: str = ""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.detail} ({self.code})"


class ServiceUnreachable(CoppiceError):
    """Nothing answers at the address."""


class FolderTaken(CoppiceError):
    """The folder to download to holds other files under the same names."""


class DownloadCorrupt(CoppiceError):
    """A file arrived with another sha256 than the service says it has."""
