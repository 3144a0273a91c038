"""How long a training is, what its learning rate is at each step, and when it is judged: by epochs, or by a budget of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from pruning_core.spec.training import TrainingOptions

# A budget plans for this share of itself, since other processes come and go; beyond it, steps are taken off the end.
_PLANNED = 0.95
# Judgements take at most this share of a budget's time.
_JUDGING = 0.2
# Steps whose mean tells what the next ones take.
_WINDOW = 20


class Schedule(Protocol):
    """The length of a training, its learning rate and its judgements."""

    @property
    def steps(self) -> int:
        """Number of steps; it may shrink."""
        ...

    @property
    def planned(self) -> int:
        """Number of steps that were planned at the start."""
        ...

    @property
    def rehearses(self) -> bool:
        """Whether the time of a step must be known before the first."""
        ...

    def begin(self, step_s: float, judgement_s: float, spent_s: float, /) -> None:
        """Plan, from the seconds of a step, of a judgement, and of all until now. It is not called after a resume."""
        ...

    def share(self, step: int, /) -> float:
        """Return the learning rate of a step as a share of its peak."""
        ...

    def judges_after(self, step: int, /) -> bool:
        """Return whether the weights are judged after this many steps."""
        ...

    def took(self, step: int, seconds: float, spent_s: float, /) -> None:
        """Note the seconds of the step after which there are ``step``, and of all until now."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, saved with a checkpoint."""
        ...

    def restore(self, state: Tensor, /) -> None:
        """Restore what `tensors` has given as ``plan``."""
        ...


@dataclass(frozen=True, slots=True)
class ByEpochs:
    """So many epochs: a linear rise and a linear fall, judged so many times in each epoch and at its end.

    Attributes:
        steps: Number of steps.
        per_epoch: Number of steps of an epoch.
        judgements: Judgements in each epoch.
        warmup: Share of the steps in which the rate rises.
    """

    steps: int
    per_epoch: int
    judgements: int
    warmup: float
    rehearses: bool = False

    @classmethod
    def of(cls, options: TrainingOptions, per_epoch: int, steps: int | None = None) -> ByEpochs:
        """Return the schedule of training options.

        Args:
            options: The method's training options.
            per_epoch: Number of steps of an epoch.
            steps: Number of steps; None: those of all epochs.
        """
        return cls(options.epochs * per_epoch if steps is None else steps, per_epoch, options.judgements, options.warmup)

    @property
    def planned(self) -> int:
        """The same."""
        return self.steps

    def begin(self, _step_s: float, _judgement_s: float, _spent_s: float, /) -> None:
        """Plan nothing: the length is given."""

    def share(self, step: int, /) -> float:
        """Return the rate's share of its peak."""
        return one_cycle(step, self.steps, self.warmup)

    def judges_after(self, step: int, /) -> bool:
        """Return whether an epoch ends here, or one of its parts, or the training."""
        within = step % self.per_epoch
        return step >= self.steps or within == 0 or within % max(1, self.per_epoch // self.judgements) == 0

    def took(self, _step: int, _seconds: float, _spent_s: float, /) -> None:
        """Note nothing."""

    def tensors(self) -> dict[str, Tensor]:
        """Return no state."""
        return {}

    def restore(self, _state: Tensor, /) -> None:
        """Restore nothing."""


@dataclass(slots=True)
class ByBudget:
    """As many steps as a budget has room for, or a given number of them: one cycle of the learning rate.

    The number of steps is planned once, from the seconds of one step and one judgement. Where steps turn out to take longer,
    some are taken off the end, and the rate falls to zero by then: the budget is kept, and no training ends in the middle of
    its cycle. What was planned is part of a checkpoint, so that a resumed training goes on by the same plan.

    Attributes:
        budget_s: Seconds for all of it; None: the steps are given.
        given: Number of steps, whatever they take; None: as many as the budget allows.
        judgements: Most judgements after the first.
        warmup: Share of the steps in which the rate rises.
    """

    budget_s: float | None
    given: int | None
    judgements: int
    warmup: float
    _planned: int = 0
    _steps: int = 0
    _every: int = 1
    _bend: int = 0  # step since which the rate falls straight to zero at the end, since the plan was cut
    _rate: float = 0.0  # rate at that step
    _judgement_s: float = 0.0
    _recent: list[float] = field(default_factory=list[float])

    @property
    def steps(self) -> int:
        """Number of steps as planned now."""
        return self._steps

    @property
    def planned(self) -> int:
        """Number of steps as planned at the start."""
        return self._planned

    @property
    def rehearses(self) -> bool:
        """Whether the budget decides how many steps there are."""
        return self.given is None

    def begin(self, step_s: float, judgement_s: float, spent_s: float, /) -> None:
        """Plan the steps and the judgements."""
        self._judgement_s = judgement_s
        if self.given is not None:
            steps, judgements = self.given, self.judgements
        else:
            assert self.budget_s is not None, "steps are given, or a budget"
            left = max(0.0, _PLANNED * self.budget_s - spent_s)
            judgements = max(1, min(self.judgements, int(_JUDGING * left / max(judgement_s, 1e-9))))
            steps = max(0, int((left - judgements * judgement_s) / max(step_s, 1e-9)))
        self._planned = self._steps = steps
        self._every = max(1, math.ceil(steps / judgements))

    def share(self, step: int, /) -> float:
        """Return the rate's share of its peak."""
        if self._bend:
            return self._rate * (self._steps - step) / max(1, self._steps - self._bend)
        return one_cycle(step, self._steps, self.warmup)

    def judges_after(self, step: int, /) -> bool:
        """Return whether it is time, or the end."""
        return step % self._every == 0 or step >= self._steps

    def took(self, step: int, seconds: float, spent_s: float, /) -> None:
        """Take steps off the end if the budget has no room for them."""
        if self.given is not None or self.budget_s is None:
            return
        self._recent = [*self._recent[1 - _WINDOW :], seconds]
        mean = sum(self._recent) / len(self._recent)
        # What is left: steps, the judgements among them, and the last one.
        left = self.budget_s - spent_s - self._judgement_s
        each = mean + self._judgement_s / self._every
        room = max(0, int(left / max(each, 1e-9)))
        if step + room < self._steps:
            self._rate, self._bend = self.share(step), step
            self._steps = step + room

    def tensors(self) -> dict[str, Tensor]:
        """Return the plan as ``plan``."""
        own: Sequence[float] = (
            *(self._planned, self._steps, self._every, self._bend, self._rate, self._judgement_s),
            *self._recent,
        )
        return {"plan": torch.tensor(own, dtype=torch.float64)}

    def restore(self, state: Tensor, /) -> None:
        """Restore the plan."""
        planned, steps, every, bend, self._rate, self._judgement_s, *self._recent = state.tolist()
        self._planned, self._steps, self._every, self._bend = int(planned), int(steps), int(every), int(bend)


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Return the learning rate's share of its peak: a linear rise to 1, then a linear fall to 0 after the last step."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(1, steps - rising)
