"""Refusals of requests. Only the edge knows their status in HTTP."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager


class RequestError(Exception):
    """Base: a stable code, a sentence that says what would be right, and where (JSON pointer or parameter)."""

    def __init__(self, code: str, message: str, pointer: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer


class Refused(RequestError):
    """The request is well-formed but cannot be carried out.

    Attributes:
        others: What else is wrong with it, found by checks that do not depend on each other.
    """

    others: tuple[Refused, ...] = ()

    @classmethod
    def of_all(cls, found: Sequence[Refused]) -> Refused:
        """Return the first of some refusals, which carries the others."""
        first, *rest = found
        first.others = (*first.others, *(one for refusal in rest for one in (refusal, *refusal.others)))
        return first


class Refusals:
    """Gathers what independent checks of a request refuse."""

    def __init__(self) -> None:
        self._found: list[Refused] = []

    @contextmanager
    def gathered(self) -> Generator[None]:
        """Keep a refusal, and go on behind it."""
        try:
            yield
        except Refused as refusal:
            self._found.append(refusal)

    def end(self) -> None:
        """Raise what was gathered.

        Raises:
            Refused: Something was.
        """
        if self._found:
            raise Refused.of_all(self._found)


class NotFound(RequestError):
    """There is no such thing, or it is somebody else's."""


class Conflict(RequestError):
    """The state of the job does not allow it."""


class QuotaExceeded(RequestError):
    """The owner has as many jobs, bytes or requests as allowed; later there will be room."""


class TooLarge(RequestError):
    """The body, as declared or as it comes, is larger than anything that is taken."""


class NoRoom(RequestError):
    """The server's disk has no room for it."""

    @classmethod
    def on_disk(cls) -> NoRoom:
        """Say so, as for every other full disk."""
        return cls("storage_full", "the server has no space left for this; try again later, or ask its operator")


class Busy(RequestError):
    """The server has as much to do as it can; later there will be time."""
