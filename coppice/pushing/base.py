"""What all pushes share: errors, the account of what has arrived, and the result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from coppice.errors import CoppiceError
from coppice.pushing.bundle import Bundle, BundleFile

Show = Callable[[str, float], None]


class PushRefused(CoppiceError):
    """The destination does not take the bundle, or not from this user. The message says how to mend it."""


class PushUnreachable(CoppiceError):
    """Nothing answers at the destination, or it is out of order."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A bundle that has arrived.

    Attributes:
        url: Where it is, for people and programs.
        version: The destination's own name of exactly these files: a commit, or a digest; None where it has none.
        notes: What people may not expect.
    """

    url: str
    version: str | None = None
    notes: tuple[str, ...] = ()


class Account:
    """What of a bundle has arrived so far, and what was there before.

    Attributes:
        sent: Files that were sent by this push, and are there now.
        there: Files that were there before, with the same content.
    """

    def __init__(self, bundle: Bundle, show: Show) -> None:
        self.sent: list[BundleFile] = []
        self.there: list[BundleFile] = []
        self._total = max(bundle.size, 1)
        self._done = 0
        self._bytes = 0
        self._current = ""
        self._show = show
        self._lock = threading.Lock()  # some libraries tell from threads of their own

    def skip(self, file: BundleFile) -> None:
        """Note a file that is there already."""
        self.there.append(file)
        self._end(file)

    def begin(self, file: BundleFile) -> None:
        """Note that a file is on its way. Raises `PushRefused` where it is no longer what was verified."""
        if not file.is_as_verified:
            raise PushRefused(f"{file.path!a} was changed after it was verified, and is not sent; push again")
        self._current = file.path
        self._tell()

    def add(self, more: int) -> None:
        """Note bytes of the current file that were sent."""
        with self._lock:
            self._bytes += more
            self._tell()

    def finish(self, file: BundleFile) -> None:
        """Note a file that has arrived."""
        self.sent.append(file)
        self._end(file)

    def _end(self, file: BundleFile) -> None:
        with self._lock:
            self._done, self._bytes = self._done + file.size, 0
            self._tell()

    def _tell(self) -> None:
        if self._current:
            self._show(self._current, min(1.0, (self._done + self._bytes) / self._total))
