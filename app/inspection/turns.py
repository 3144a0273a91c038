"""Turns: a few at a time, of one owner fewer still, the others in line for a while. For the event loop alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.refusals import Busy, QuotaExceeded

_MOST_REMEMBERED = 1000
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
        self._calls = 0
        self._called: dict[str, int] = {}  # number of the last call of each owner

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
            self._leave(owner)

    async def _wait(self, owner: str) -> None:
        if self._is_free_for(owner) and not self._waiting:
            self._enter(owner)
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
                self._leave(owner)
            if isinstance(error, TimeoutError):
                raise self._refusal(owner) from None
            raise

    def _leave(self, owner: str) -> None:
        self._busy[owner] -= 1
        if not self._busy[owner]:
            del self._busy[owner]
        self._call()

    def _is_free_for(self, owner: str) -> bool:
        return self._busy.total() < self._at_once and self._busy[owner] < self._per_owner

    def _call(self) -> None:
        """Call those whose turn it is: of the owners in line the one whose last call is longest ago, however long its line."""
        while found := [own for own in self._waiting if self._is_free_for(own.owner)]:
            own = min(found, key=lambda own: self._called.get(own.owner, 0))
            self._waiting.remove(own)
            self._enter(own.owner)
            own.called.set_result(None)

    def _enter(self, owner: str) -> None:
        self._busy[owner] += 1
        self._calls += 1
        self._called[owner] = self._calls
        if len(self._called) > _MOST_REMEMBERED:
            del self._called[min(self._called, key=lambda name: self._called[name])]

    def _refusal(self, owner: str) -> Busy | QuotaExceeded:
        if self._busy[owner]:
            return QuotaExceeded("busy", "as many of your files are being read as this server reads at once; try again shortly")
        return Busy("busy", "the server is reading as many files as it can; try again shortly")
