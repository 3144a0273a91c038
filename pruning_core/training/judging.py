"""Judging weights on held-out samples: their losses, one for each sample, and the guard that a healing must pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.machine.precision import products_in
from pruning_core.shapes import Float
from pruning_core.spec.training import TrainingOptions
from pruning_core.training.dataset import TrainingSet
from pruning_core.training.group import Group
from pruning_core.training.objective import Objective

# Standard errors by which weights must be better than the start: some 98 % of a single look, less of the best of several.
_SURE = 2.0


class Judges:
    """The held-out samples of a training, and what they are judged by.

    Args:
        objective: Loss of a sample.
        training_set: Has the held-out rows, by kind.
        group: Processes that judge side by side, each its share of the rows.
        dtype: Format of matrix products.
    """

    def __init__(self, objective: Objective, training_set: TrainingSet, group: Group, dtype: torch.dtype) -> None:
        self._objective, self._group, self._dtype = objective, group, dtype
        self._places = {kind: {row: at for at, row in enumerate(rows)} for kind, rows in training_set.judged.items()}
        self._batches = {
            kind: training_set.batches(rows[group.rank :: group.world]) for kind, rows in training_set.judged.items()
        }

    @torch.no_grad()
    def losses(self) -> dict[str, Float[Tensor, " n"]]:
        """Return the loss of each held-out sample, by kind, in float64 on the CPU; the same in all processes."""
        found: dict[str, Tensor] = {}
        device = self._objective.device
        for kind, batches in self._batches.items():
            places, lost = self._places[kind], torch.zeros(len(self._places[kind]), dtype=torch.float64, device=device)
            for batch in batches:
                with products_in(self._dtype, device):
                    own = self._objective.per_sample(batch.to(device))
                lost[[places[row] for row in batch.rows.tolist()]] = own.double()
            self._group.sum_([lost])
            found[kind] = lost.cpu()
        return found


@dataclass(frozen=True, slots=True)
class Guard:
    """What keeps a healing from making a model worse.

    Weights pass if the divergence from the dense model is surely smaller than at the start, on the held-out samples of all
    kinds together, each compared with itself; and if it is not larger on those of any kind.
    """

    def judged_by(self, options: TrainingOptions) -> TrainingOptions:
        """Return the options of the loss that judges: the divergence of the outputs alone, not softened."""
        return options.but(distillation=1.0, hidden=0.0, temperature=1.0)

    def lets(self, start: Mapping[str, Float[Tensor, " n"]], now: Mapping[str, Float[Tensor, " n"]]) -> bool:
        """Return whether weights pass.

        Args:
            start: Losses of the held-out samples before the first step, by kind.
            now: Losses of the same samples.
        """
        gained = {kind: start[kind] - now[kind] for kind in start}
        if not all(bool(own.isfinite().all()) and float(own.mean()) >= 0 for own in gained.values()):
            return False
        mean = sum(float(own.mean()) for own in gained.values())
        error = math.sqrt(sum(float(own.var()) / len(own) for own in gained.values() if len(own) > 1))
        return mean > _SURE * error
