"""Evidence of a run: the dense model on the calibration data, the ground of scores and recovery."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import CurveBudget
from pruning_core.engines.limits import Limits
from pruning_core.evidence.calibration import TokenSet
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.states import DenseStates
from pruning_core.kept.piece import Json
from pruning_core.kept.statistics import Statistics
from pruning_core.tasks.base import TaskModel


@dataclass(frozen=True, slots=True)
class Evidence:
    """The dense model, the calibration data, and the hidden states of the one on the other.

    Attributes:
        dense: Adapter of the dense model.
        calibration: Calibration batches.
        states: Hidden states that are kept from the scoring pass, as far as memory allows.
        dtype: Format of matrix products while statistics are gathered.
        written: Number of the calibration samples that the dense model wrote itself.
        notes: Warnings about the samples, for whoever prepared the data.
    """

    dense: ModelAdapter
    calibration: TokenSet
    states: DenseStates
    dtype: torch.dtype
    written: int = 0
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> dict[str, Json]:
        """What statistics on these samples depend on, as JSON, for those that are kept."""
        return {"samples": self.calibration.fingerprint, "products": str(self.dtype), "states": self.states.key}


@dataclass(frozen=True, slots=True)
class Context:
    """The input of every method: model, evidence, clock and seed.

    ``layers`` are the layers that stay when the stock layout is planned; None if every layer has widths of its own. ``limits``
    are what engines can hold of such widths; None outside the layout for serving. ``budgets`` are those of latencies in
    engines, whose tables are measured before anything else; by the names of their targets. ``statistics`` are what earlier runs
    found out about the dense model, and what this one keeps.
    """

    task_model: TaskModel
    evidence: Evidence
    clock: StageClock
    seed: int
    layers: tuple[int, ...] | None = None
    limits: Limits | None = None
    budgets: Mapping[str, CurveBudget] = field(default_factory=dict[str, CurveBudget])
    statistics: Statistics = field(default_factory=Statistics)

    @property
    def groups(self) -> tuple[UnitGroup, ...]:
        """The dense model's unit groups."""
        return self.evidence.dense.groups

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator for one purpose, independent of the draws for any other purpose."""
        return generator(self.seed, purpose)


def generator(seed: int, purpose: str) -> torch.Generator:
    """Derive a CPU generator from the spec's seed and a purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
