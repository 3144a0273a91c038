"""Phases: constraints that follow each other in one training, such as ADMM and fine-tuning on its support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pruning_core.training.constraint import Constraint, Moment

# Parts of a training that may be trainings of their own, with a refit between them.
Part = Literal["all", "choice", "tuning"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A constraint, made when its phase begins, and its share of the steps."""

    share: float
    make: Callable[[], Constraint]


class Phases:
    """A constraint that runs phases in turn. Each phase is finished before the next begins, which starts from its weights.

    Args:
        phases: The phases in order. Shares are relative to their sum; a phase that gets no step is skipped, except the last.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        assert phases, "there is at least one phase"
        self._phases = tuple(phases)
        self._ends: tuple[int, ...] = ()
        self._index, self._present = 0, self._phases[0].make()

    @property
    def phase(self) -> str:
        """Name of the present phase."""
        return self._present.phase

    @property
    def ready(self) -> bool:
        """Whether the present phase is ready."""
        return self._present.ready

    def begin(self, steps: int, /) -> None:
        """Divide the steps among the phases, and begin the first phase that gets any."""
        total, ends, reached = sum(phase.share for phase in self._phases), list[int](), 0.0
        for phase in self._phases:
            reached += phase.share / total
            ends.append(round(reached * steps))
        self._ends = (*ends[:-1], steps)
        self._enter(next(index for index, end in enumerate(self._ends) if end > 0))

    def before_forward(self, moment: Moment, /) -> None:
        """Enter the next phase if it is due, then let the present phase change the weights."""
        while moment.step >= self._ends[self._index]:
            self._present.finish()
            self._enter(self._index + 1)
        self._present.before_forward(self._within(moment))

    def before_step(self, moment: Moment, /) -> None:
        """Let the present phase add to the gradients."""
        self._present.before_step(self._within(moment))

    def after_step(self, moment: Moment, /) -> None:
        """Let the present phase change the weights after the optimiser's step."""
        self._present.after_step(self._within(moment))

    def at_epoch(self, epoch: int, /) -> None:
        """Let the present phase react to the end of an epoch."""
        self._present.at_epoch(epoch)

    def finish(self) -> None:
        """Finish the present phase."""
        self._present.finish()

    def applied(self) -> AbstractContextManager[None]:
        """Hold the weights as the present phase would leave them."""
        return self._present.applied()

    def measures(self) -> dict[str, float]:
        """Return the present phase's figures."""
        return self._present.measures()

    def tensors(self) -> dict[str, Tensor]:
        """Return the present phase's state, and its index."""
        own = {f"present.{name}": tensor for name, tensor in self._present.tensors().items()}
        return own | {"index": torch.tensor(self._index)}

    def restore(self, tensors: Mapping[str, Tensor], /) -> None:
        """Enter the saved phase, and restore its state."""
        self._enter(int(tensors["index"]))
        self._present.restore({name.removeprefix("present."): own for name, own in tensors.items() if name != "index"})

    def _enter(self, index: int) -> None:
        self._index = index
        self._present = self._phases[index].make()
        self._present.begin(self._ends[index] - self._start)

    @property
    def _start(self) -> int:
        return self._ends[self._index - 1] if self._index else 0

    def _within(self, moment: Moment, /) -> Moment:
        return replace(moment, step=moment.step - self._start, steps=self._ends[self._index] - self._start)


class Choice(Phases):
    """Phases that choose weights: what they have chosen at their end counts, and not what was best on the way there.

    The held-out loss on the way is that of weights that a penalty shrinks, and says little of the choice.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        super().__init__(phases)
        self._ended = False

    @property
    def ready(self) -> bool:
        """Whether the last step has been taken."""
        return self._ended

    def after_step(self, moment: Moment, /) -> None:
        """Let the present phase change the weights, and note the end."""
        super().after_step(moment)
        self._ended = moment.step + 1 >= moment.steps


def phases_of(part: Part, share: float, choice: Callable[[], Constraint], tuning: Callable[[], Constraint]) -> Phases:
    """Return the phases of a part of a training: what chooses weights, what tunes those that stay, or both in turn.

    Args:
        part: Which of them.
        share: Share of all steps that choose.
        choice: Makes the constraint that chooses.
        tuning: Makes the constraint that tunes.
    """
    phases = [Phase(share, choice)] if share and part != "tuning" else []
    if share < 1 and part != "choice":
        phases.append(Phase(1 - share, tuning))
    return Choice(phases) if part == "choice" else Phases(phases)
