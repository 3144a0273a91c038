"""The clock of a run: seconds of each stage, and progress for callers."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from pruning_core.report.progress import STAGES, Progress, Stage
from pruning_core.report.report import SecondsReport


class StageClock:
    """Measures the stages of one run, and reports progress within each."""

    def __init__(self, on_progress: Callable[[Progress], None], now: Callable[[], float] = time.perf_counter) -> None:
        """Start the clock.

        Args:
            on_progress: Called at every step.
            now: Returns the seconds of some clock; a benchmark may count processor time.
        """
        self._on_progress, self._now = on_progress, now
        self._start = now()
        self._seconds: dict[Stage, float] = {stage: 0.0 for stage in STAGES if stage != "engines"}
        self._part, self._parts = 0, 1
        self._trains = self._engines = False

    def begin_part(self, part: int, parts: int) -> None:
        """Begin the stages of one of several targets."""
        self._part, self._parts = part, parts

    def expect_training(self) -> None:
        """Announce that this run trains, which takes most of its time."""
        self._trains = True

    def expect_engines(self) -> None:
        """Announce that the bundle is run in engines; reports of other runs do not know the stage, as earlier clients don't."""
        self._engines = True
        self._seconds = {stage: self._seconds.get(stage, 0.0) for stage in STAGES}

    @contextmanager
    def stage(self, stage: Stage, total: int = 1) -> Generator[Callable[[int], None]]:
        """Time a stage. The context's value is a function to be called with the number of steps done so far."""
        began = self._now()

        def tell(step: int) -> None:
            place = {"part": self._part, "parts": self._parts}
            now = Progress(stage=stage, step=step, total=total, trains=self._trains, engines=self._engines, **place)
            self._on_progress(now)

        tell(0)
        try:
            yield tell
        finally:
            self._seconds[stage] += self._now() - began
        tell(total)

    def report(self) -> SecondsReport:
        """Return the seconds so far."""
        return SecondsReport(total=self._now() - self._start, by_stage=dict(self._seconds))
