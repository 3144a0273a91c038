"""What every method gives: a planner that gathers statistics once, and plans that prune, train, and count themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.masks import Mask
from pruning_core.budgets import Recounted
from pruning_core.evidence.context import Evidence
from pruning_core.measure.outcome import ZeroCount
from pruning_core.recovery.matrix import Fit
from pruning_core.report.products import ProductsReport
from pruning_core.report.report import Outcome, SublayerReport
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.grammar import BlockPattern, SegmentBlock
from pruning_core.spec.prune import RecoverySpec
from pruning_core.spec.targets import Target
from pruning_core.spec.training import TrainingOptions
from pruning_core.training.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Applied:
    """What pruning and repair have done to a student.

    Attributes:
        mask: Units that stayed.
        sublayers: How the repair of each sublayer went.
        fits: How each matrix went, where weights were set to zero.
    """

    mask: Mask
    sublayers: tuple[SublayerReport, ...]
    fits: tuple[Fit, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The training that follows a pruning.

    Attributes:
        recipe: Makes the constraint that the weights are held to.
        options: Of the trained tier.
        from_dense: Whether it begins with the dense weights; else with those that the pruning has left.
    """

    recipe: Recipe
    options: TrainingOptions
    from_dense: bool


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint as it was written, counted by the shapes of its tensors.

    Attributes:
        folder: Where it is.
        dense: Sublayers of the dense model.
        applied: What was done to it.
        recounted: Units, parameters and latency.
        products: Products with its matrices, timed; None where they were not.
    """

    folder: Path
    dense: ModelAdapter
    applied: Applied
    recounted: Recounted
    products: ProductsReport | None


class Plan(Protocol):
    """How a student is pruned. Nothing outside of a method asks which method a plan is of."""

    @property
    def zeroes_weights(self) -> bool:
        """Whether weights are set to zero in matrices that keep their shapes."""
        ...

    @property
    def training(self) -> TrainingPlan | None:
        """The training that follows; None where there is none."""
        ...

    def apply_(
        self,
        student: PreTrainedModel,
        evidence: Evidence,
        recovery: RecoverySpec,
        *,
        on_sublayer: Callable[[int], None],
    ) -> Applied:
        """Prune a student and repair it, in place.

        Args:
            student: A clone of the dense model.
            evidence: Dense model and calibration batches.
            recovery: How to repair.
            on_sublayer: Told after each sublayer how many are done.
        """
        ...

    def finish_(self, student: PreTrainedModel, applied: Applied, layout: Layout) -> Applied:
        """Do what is left to do after a training, in place.

        Args:
            student: Pruned, repaired and trained.
            applied: What was done so far.
            layout: Of the checkpoint that will be written.
        """
        ...

    def recount(self, written: Written) -> ZeroCount | None:
        """Count the zeros of a written checkpoint; None where the method sets none."""
        ...

    def zero_blocks(self, names: Sequence[str]) -> Mapping[str, BlockPattern | SegmentBlock | None]:
        """Return the blocks in which the zeros of each matrix stand, by module path; None where they stand anywhere."""
        ...

    def hints(self, outcome: Outcome) -> list[str]:
        """Say what users should know of a result: what it does not buy, what was left dense, what went besides."""
        ...


class Planner(Protocol):
    """The statistics of a run, gathered once, and the plans that are made of them for any target."""

    def plans(self, target: Target) -> Iterator[Plan]:
        """Plan a target; where a clock decides, give others to try should it say no.

        Raises:
            TargetUnreachable: No plan can meet it.
        """
        ...
