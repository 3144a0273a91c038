"""Turns: a few at a time, of one owner fewer still, the others in line for a while. For the event loop alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.refusals import Busy, QuotaExceeded

_LONGEST_LINE = 100  # requests of one owner that may wait; each holds a connection, and perhaps an archive on the disk


@dataclass(eq=False, slots=True)
class _Waiter:
    owner: str
    called: asyncio.Future[None]


class Turns:
    """Turns at one kind of work.

    Args:
        at_once: How many are at it.
        per_owner: How many of one owner are at it.
        patience_s: How long one waits.
    """

    def __init__(self, at_once: int, per_owner: int, patience_s: float) -> None:
        self._at_once = at_once
        self._per_owner = per_owner
        self._patience_s = patience_s
        self._busy: Counter[str] = Counter()
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncGenerator[None]:
        """Wait for a turn, and have it while the context lasts.

        Raises:
            QuotaExceeded: The owner's own requests take too long.
            Busy: Those of others do.
        """
        await self._wait(owner)
        try:
            yield
        finally:
            self._busy[owner] -= 1
            if not self._busy[owner]:
                del self._busy[owner]
            self._call()

    async def _wait(self, owner: str) -> None:
        if self._is_free_for(owner) and not self._waiting:
            self._busy[owner] += 1
            return
        if sum(own.owner == owner for own in self._waiting) >= _LONGEST_LINE:
            raise self._refusal(owner)
        own = _Waiter(owner, asyncio.get_running_loop().create_future())
        self._waiting.append(own)
        self._call()
        try:
            await asyncio.wait_for(asyncio.shield(own.called), self._patience_s)
        except BaseException as error:
            if own in self._waiting:
                self._waiting.remove(own)
            else:  # called in the same moment
                self._busy[owner] -= 1
                self._call()
            if isinstance(error, TimeoutError):
                raise self._refusal(owner) from None
            raise

    def _is_free_for(self, owner: str) -> bool:
        return self._busy.total() < self._at_once and self._busy[owner] < self._per_owner

    def _call(self) -> None:
        """Call those whose turn it is. An owner who has as many as allowed is passed over, and holds nobody up."""
        for own in list(self._waiting):
            if self._is_free_for(own.owner):
                self._waiting.remove(own)
                self._busy[own.owner] += 1
                own.called.set_result(None)

    def _refusal(self, owner: str) -> Busy | QuotaExceeded:
        if self._busy[owner]:
            return QuotaExceeded("busy", "as many of your files are being read as this server reads at once; try again shortly")
        return Busy("busy", "the server is reading as many files as it can; try again shortly")
