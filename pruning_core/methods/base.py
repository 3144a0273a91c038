"""Protocols of a pruning method: a planner that gathers statistics once, and plans that prune, train and count zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.masks import Mask
from pruning_core.evidence.context import Evidence
from pruning_core.linalg.rounding import Rounded
from pruning_core.measure.outcome import ShapeCount, ZeroCount
from pruning_core.patterns.project import Projection
from pruning_core.recovery.matrix_fit import Fit
from pruning_core.report.outlook import OutlookReport
from pruning_core.report.products import ProductsReport
from pruning_core.report.report import Outcome, SublayerReport
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.grammar import BlockPattern, SegmentBlock
from pruning_core.spec.options import ZeroingOptions
from pruning_core.spec.prune import RecoverySpec
from pruning_core.spec.targets import Target
from pruning_core.spec.training import TrainingOptions
from pruning_core.training.recipe import FirstChoice, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of pruning and repairing a student.

    Attributes:
        mask: The units that stayed.
        sublayers: Report of the repair of each sublayer.
        fits: Fit of each matrix, if the method sets weights to zero.
        rounded: Matrices that are stored as integers, by module path.
    """

    mask: Mask
    sublayers: tuple[SublayerReport, ...]
    fits: tuple[Fit, ...] = ()
    rounded: Mapping[str, Rounded] = field(default_factory=dict[str, Rounded])


@dataclass(frozen=True, slots=True)
class Choosing:
    """A training from dense weights that chooses which of them stay.

    Its values are not kept: a penalty shrinks those that stay, too. They are refitted from the dense weights by least squares.

    Attributes:
        first: The training that chooses.
        refit: Options of the refit.
        kept: Returns the projection of each matrix for the refit, by its module path, from the model that holds the choice.
    """

    first: FirstChoice
    refit: ZeroingOptions
    kept: Callable[[PreTrainedModel], Mapping[str, Projection]]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The training that follows a pruning.

    Attributes:
        recipe: Makes the constraint on the weights; after a choice, for the steps that are left.
        options: Options of the trained tier.
        from_dense: Whether training starts from the dense weights; otherwise it starts from the pruned ones.
        choosing: The training that comes first, and takes the place of the one-shot choice; None: there is none.
    """

    recipe: Recipe
    options: TrainingOptions
    from_dense: bool
    choosing: Choosing | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A written checkpoint, counted by the shapes of its tensors.

    Attributes:
        folder: Its folder.
        dense: Adapter of the dense model.
        applied: The pruning and repair that made it.
        shapes: Its units, parameters, multiply-accumulates and latency.
        products: Timings of products with its matrices; None if there are none.
    """

    folder: Path
    dense: ModelAdapter
    applied: Applied
    shapes: ShapeCount
    products: ProductsReport | None


class Plan(Protocol):
    """A way to prune a student for one target. Nothing outside of a method asks which method a plan is of."""

    @property
    def zeroes_weights(self) -> bool:
        """Whether the plan sets weights to zero in matrices that keep their shapes."""
        ...

    @property
    def training(self) -> TrainingPlan | None:
        """The training that follows; None if there is none."""
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
            recovery: Options of the repair.
            on_sublayer: Called after each sublayer with the number done.
        """
        ...

    def finish_(self, student: PreTrainedModel, applied: Applied, layout: Layout) -> Applied:
        """Complete the student after training, in place.

        Args:
            student: The pruned, repaired and trained model.
            applied: The result of `apply_`.
            layout: Layout of the checkpoint that will be written.
        """
        ...

    def recount(self, written: Written) -> ZeroCount | None:
        """Count the zeros of a written checkpoint; return None if the method sets none."""
        ...

    def zero_blocks(self, names: Sequence[str]) -> Mapping[str, BlockPattern | SegmentBlock | None]:
        """Return the blocks that the zeros of each matrix follow, by module path; None if zeros lie anywhere."""
        ...

    def hints(self, outcome: Outcome) -> list[str]:
        """Return what users should know of an outcome: what zeros do not save, what stayed dense, what else was removed."""
        ...


class Planner(Protocol):
    """The statistics of a run, gathered once, from which plans for any target are made."""

    def plans(self, target: Target) -> Iterator[Plan]:
        """Yield plans for a target: one, or for a latency further ones to try if the measurement misses it.

        Raises:
            TargetUnreachable: No plan can meet it.
        """
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """A planner that can say what other budgets would cost, from its statistics alone."""

    def outlook(self, bytes_per_parameter: float) -> OutlookReport | None:
        """Return what masks of other budgets would keep; None where the choice depends on more than scores."""
        ...
