"""Turns: few at once, fewer of one owner, nobody passed over for good, and whoever leaves the line is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from app.inspection.turns import Turns
from app.refusals import Busy, QuotaExceeded


class Work:
    """Counts who is at it."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.at_it: list[str] = []
        self.most: dict[str, int] = {}
        self.order: list[str] = []

    async def do(self, owner: str, name: str = "", lasts_s: float = 0.01) -> None:
        async with self.turns.turn(owner):
            self.order.append(name or owner)
            self.at_it.append(owner)
            self.most[owner] = max(self.most.get(owner, 0), self.at_it.count(owner))
            self.most["all"] = max(self.most.get("all", 0), len(self.at_it))
            await asyncio.sleep(lasts_s)
            self.at_it.remove(owner)


def test_few_are_at_it_at_once_and_fewer_of_one_owner():
    async def run() -> Work:
        work = Work(Turns(3, 2, 10))
        await asyncio.gather(*(work.do(owner) for owner in "aaaaaaaabbbbc"))
        return work

    work = asyncio.run(run())
    assert work.most["all"] == 3
    assert work.most["a"] == 2
    assert sorted(work.order) == list("aaaaaaaabbbbc")


def test_an_owner_with_many_holds_up_nobody():
    async def run() -> list[str]:
        work = Work(Turns(2, 1, 10))
        await asyncio.gather(*(work.do("a", f"a{n}", 0.02) for n in range(5)), work.do("b", "b0"))
        return work.order

    assert asyncio.run(run())[:2] == ["a0", "b0"]


def test_owners_with_long_lines_take_turns_with_those_who_come_later():
    async def run() -> list[str]:
        work = Work(Turns(1, 1, 10))
        early = [asyncio.create_task(work.do(owner, f"{owner}{n}", 0.001)) for n in range(20) for owner in "ab"]
        await asyncio.sleep(0)
        late = asyncio.create_task(work.do("c", "late"))
        await asyncio.gather(*early, late)
        return work.order

    assert asyncio.run(run()).index("late") <= 3


def test_whoever_waits_too_long_is_told_whose_fault_it_is():
    async def run() -> tuple[BaseException, BaseException]:
        work = Work(Turns(1, 1, 0.05))
        first = asyncio.create_task(work.do("a", lasts_s=0.3))
        await asyncio.sleep(0)
        own, others = await asyncio.gather(work.do("a"), work.do("b"), return_exceptions=True)
        await first
        await work.do("b")  # the line is empty again
        return own, others

    own, others = asyncio.run(run())
    assert isinstance(own, QuotaExceeded)
    assert isinstance(others, Busy)


def test_whoever_goes_away_leaves_no_gap():
    async def run() -> list[str]:
        work = Work(Turns(1, 1, 10))
        first = asyncio.create_task(work.do("a", "first", 0.05))
        await asyncio.sleep(0)
        gone = asyncio.create_task(work.do("b", "gone"))
        waiting = asyncio.create_task(work.do("c", "waiting"))
        await asyncio.sleep(0)
        gone.cancel()
        at_work = asyncio.create_task(work.do("d", "cancelled at work", 10))
        await asyncio.gather(first, waiting)
        await asyncio.sleep(0.02)
        at_work.cancel()
        await asyncio.gather(gone, at_work, return_exceptions=True)
        await asyncio.wait_for(work.do("e", "last"), 1)
        return work.order

    assert asyncio.run(run()) == ["first", "waiting", "cancelled at work", "last"]


def test_the_line_of_one_owner_has_an_end():
    async def run() -> int:
        work = Work(Turns(1, 1, 10))
        tasks = [asyncio.create_task(work.do("a", lasts_s=0.001)) for _ in range(120)]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(isinstance(one, QuotaExceeded) for one in done)

    assert asyncio.run(run()) == 19


@pytest.mark.parametrize("fails", [ValueError, asyncio.CancelledError])
def test_a_turn_ends_with_an_error_too(fails: type[BaseException]):
    async def run() -> None:
        turns = Turns(1, 1, 0.1)
        with pytest.raises(fails):
            async with turns.turn("a"):
                raise fails
        async with turns.turn("b"):
            pass

    asyncio.run(run())
