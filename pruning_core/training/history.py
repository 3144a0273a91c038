"""Curves of a running training: losses, judgements and phases, and the decision to stop."""

from __future__ import annotations

import math
import statistics

from pruning_core.report.training import Ending, PhaseReport, TrainingPoint
from pruning_core.training.checkpoints import TrainingState

# The loss has exploded if its mean over this many steps is more than this many times that of a model that has learnt nothing.
_WINDOW = 20
_EXPLODED = 10.0
# A loss this small may well grow tenfold.
_LEAST_FIRST = 1e-3


class Curves:
    """The record of a running training.

    Args:
        naive: Loss of a model that has learnt nothing; None: the first step's loss takes its place.

    Attributes:
        every: Steps between two points of the curve.
    """

    def __init__(self, naive: float | None) -> None:
        self.every, self._naive, self._first = 1, naive, 0.0
        self.step = 0
        self.points: list[TrainingPoint] = []
        self.held_out_start = self.best = math.inf
        self.best_step = self._without_best = 0
        self.ending: Ending | None = None
        self.reason: str | None = None
        self._phases: dict[str, tuple[int, float]] = {}
        self._pending: list[float] = []
        self._recent: list[float] = []
        self._best_ready = False

    def took(self, phase: str, loss: float, measures: dict[str, float], seconds: float) -> None:
        """Record a step."""
        self.step += 1
        steps, spent = self._phases.get(phase, (0, 0.0))
        self._phases[phase] = steps + 1, spent + seconds
        self._pending.append(loss)
        self._recent = [*self._recent[1 - _WINDOW :], loss]
        self._first = self._first or loss
        if self.step % self.every == 0:
            self._point(TrainingPoint(step=self.step, phase=phase, loss=0, measures=measures))
        if len(self._recent) < _WINDOW:
            return
        mean = statistics.fmean(self._recent)
        if self._naive is None and mean > _EXPLODED * max(self._first, _LEAST_FIRST):
            self.diverge(f"at step {self.step} the loss is {mean:.3g}, and that of the first step was {self._first:.3g}")
        elif self._naive is not None and mean > _EXPLODED * self._naive:
            self.diverge(f"at step {self.step} the loss is {mean:.3g}, and that of guessing would be {self._naive:.3g}")

    def judged(self, judgement: TrainingPoint, *, ready: bool, passes: bool, patience: int | None) -> bool:
        """Record a judgement, and return whether its weights are the best so far.

        The initial weights always are, even if they cannot be written as they are (not ``ready``): training falls back to
        them. The first ready weights replace those that are not ready. Weights that do not pass a guard are never the best.
        """
        step, loss = judgement.step, judgement.held_out
        if loss is None:
            if step:
                self.diverge(f"the loss on held-out rows after step {step} is no number")
            return not step
        self._point(judgement)
        if self._naive is None and step and loss > _EXPLODED * max(self.held_out_start, _LEAST_FIRST):
            self.diverge(
                f"after step {step} the loss on held-out rows is {loss:.3g}, and at the start it was {self.held_out_start:.3g}"
            )
        if step == 0 or (ready and passes and (loss < self.best or not self._best_ready)):
            self.best, self.best_step, self._best_ready, self._without_best = loss, step, ready, 0
            return True
        self._without_best += ready
        if self.ending is None and patience is not None and self._without_best >= patience:
            self.stop(f"{patience} judgements in a row found nothing better than step {self.best_step}")
        return False

    def spent(self, phase: str, seconds: float) -> None:
        """Add the time of a judgement to a phase."""
        steps, before = self._phases.get(phase, (0, 0.0))
        self._phases[phase] = steps, before + seconds

    def stop(self, reason: str) -> None:
        """End the training early."""
        self.ending, self.reason = "early", reason

    @property
    def seconds(self) -> float:
        """Seconds of all steps and judgements, earlier attempts included."""
        return sum(seconds for _, seconds in self._phases.values())

    def diverge(self, reason: str) -> None:
        """End the training as diverged."""
        self.ending, self.reason = "diverged", reason

    def phases(self) -> tuple[PhaseReport, ...]:
        """Return the reports of the phases, in order."""
        return tuple(
            PhaseReport(phase=phase, steps=steps, seconds=round(seconds, 3)) for phase, (steps, seconds) in self._phases.items()
        )

    def state(self, identity: str, step: int) -> TrainingState:
        """Return the record as the state of a checkpoint."""
        return TrainingState(
            identity=identity,
            step=step,
            points=tuple(self.points),
            phases=self.phases(),
            recent=tuple(self._recent),
            pending=tuple(self._pending),
            first=self._first,
            held_out_start=_number(self.held_out_start),
            best=_number(self.best),
            best_step=self.best_step,
            best_ready=self._best_ready,
            without_best=self._without_best,
            ending=self.ending,
            reason=self.reason,
        )

    def restore(self, state: TrainingState) -> None:
        """Restore the record from the state of a checkpoint."""
        self.step, self.points = state.step, list(state.points)
        self._phases = {own.phase: (own.steps, own.seconds) for own in state.phases}
        self._recent, self._pending = list(state.recent), list(state.pending)
        self.held_out_start, self.best, self.best_step = state.held_out_start, state.best, state.best_step
        self._best_ready, self._first = state.best_ready, state.first
        self._without_best, self.ending, self.reason = state.without_best, state.ending, state.reason

    def _point(self, point: TrainingPoint) -> None:
        """Add a point to the curve; a judgement at the step of the last point is merged into it."""
        if point.held_out is not None and self.points and self.points[-1].step == point.step and not self._pending:
            last = self.points[-1]
            self.points[-1] = last.but(held_out=point.held_out, measures=last.measures | point.measures)
            return
        loss = statistics.fmean(self._pending) if self._pending else 0.0
        self._pending = []
        self.points.append(point.but(loss=loss))


def _number(value: float) -> float:
    """Return a finite value, as all values at a boundary are: 1e300 for infinity and NaN."""
    return value if math.isfinite(value) else 1e300
