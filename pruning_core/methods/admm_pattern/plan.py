"""Plans of ``admm-pattern``: sparsity patterns by ADMM, in one shot.

Wang 2024 (arXiv 2407.08334) for patterns and their pools; ALPS, Meng et al. 2024 (arXiv 2406.07831), for ADMM and the refit on
the Gram matrix of a layer's inputs, which need neither labels nor training. The work on each matrix is in
`pruning_core.recovery.sparsify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.linear import weight_of
from pruning_core.errors import PruningError
from pruning_core.evidence.context import Context, Evidence
from pruning_core.measure.outcome import ZeroCount
from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.methods.admm_pattern.outcome import count_pattern
from pruning_core.methods.admm_pattern.recipe import PatternRecipe
from pruning_core.methods.base import Applied, TrainingPlan, Written
from pruning_core.methods.zeroing import apply_zeros_, training_plan, zero_hints
from pruning_core.patterns.pool import mine_pool
from pruning_core.patterns.project import LargestFraction, LargestOfBlock, LargestOfPool, Projection
from pruning_core.report.report import Outcome
from pruning_core.shapes import Bool, Float
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.grammar import BlockPattern, MatrixShape
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.spec.targets import PatternTarget, SparsityTarget, Target, sparsities_of
from pruning_core.stats.dense_states import ensure_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class PatternPlan:
    """The pattern of every prunable matrix.

    Attributes:
        options: The method's options.
        block: The pattern; None for unstructured.
        pool: Arrangements that blocks may have; None: any.
        sparsity: Share of the weights of each matrix (unstructured) or of each block that are pruned.
        zeroes_weights: True: shapes stay.
    """

    options: AdmmPattern
    block: BlockPattern | None
    pool: Bool[Tensor, "patterns size"] | None
    sparsity: float
    zeroes_weights: bool = True

    @property
    def projection(self) -> Projection:
        """The projection onto the supports that the pattern allows."""
        if self.block is None:
            return LargestFraction(self.sparsity)
        return LargestOfBlock(self.block) if self.pool is None else LargestOfPool(self.block, self.pool)

    @property
    def training(self) -> TrainingPlan | None:
        """The training that tier ``trained`` adds; None for ``one-shot``."""
        if not self.options.trains:
            return None
        options = self.options.training
        make = partial(PatternRecipe, self.projection, options)
        return training_plan(make, options, options, self.options.but(selection="magnitude"))

    def apply_(
        self, student: PreTrainedModel, evidence: Evidence, recovery: RecoverySpec, *, on_sublayer: Callable[[int], None]
    ) -> Applied:
        """Select the weights of every matrix under the pattern, and refit them."""
        return apply_zeros_(student, self.projection, evidence, self.options, recovery, on_sublayer=on_sublayer)

    def finish_(self, student: PreTrainedModel, applied: Applied, layout: Layout) -> Applied:
        """Return ``applied``: nothing is left to do."""
        del student, layout
        return applied

    def recount(self, written: Written) -> ZeroCount:
        """Count the pattern in the written matrices."""
        return count_pattern(written, self.options, self.block, self.pool)

    def zero_blocks(self, names: Sequence[str]) -> Mapping[str, BlockPattern | None]:
        """Return the pattern for every matrix."""
        return dict.fromkeys(names, self.block)

    def hints(self, outcome: Outcome) -> list[str]:
        """Return what zeros do not save, and which weights stayed dense."""
        return zero_hints(outcome)


@dataclass(frozen=True, slots=True)
class _Energies:
    """The squared weights of every prunable linear, input-major; computed again in each iteration."""

    dense: ModelAdapter

    def __iter__(self) -> Iterator[Float[Tensor, "k d"]]:
        """Yield the matrices in order."""
        for _, linear in self.dense.held_linears():
            yield weight_of(linear).float().T.square()


class PatternPlanner:
    """Planner of one run: the dense model runs once, and the pool is mined once."""

    def __init__(self, options: AdmmPattern, ctx: Context) -> None:
        """Record the dense model's states, and mine a pool if blocks have several outputs."""
        self._options, self._ctx = options, ctx
        self._block, self._pool = options.block, None
        with ctx.clock.stage("score", max(1, ctx.evidence.states.plan.batches)) as step:
            ensure_states(ctx, step, as_in="forward")
        if self._block is not None and not self._block.one_row and options.pool is not None:
            with ctx.clock.stage("search"):
                self._pool = mine_pool(_Energies(ctx.evidence.dense), self._block, options.pool, ctx.generator("pool"))

    def plans(self, target: Target) -> Iterator[PatternPlan]:
        """Yield the one plan for a target.

        Raises:
            PruningError: The target is no sparsity and no pattern; a validated spec has no such target.
            TargetUnreachable: The pattern does not fit the model.
        """
        if not isinstance(target, SparsityTarget | PatternTarget):
            raise PruningError(f"admm-pattern has no plan for a target of {target.metric}", param="target")
        linears = self._ctx.evidence.dense.linears
        shapes = [MatrixShape(path, *weight_of(own).shape) for path, own in linears.items()]
        self._options.check_matrices(shapes, sparsities_of([target]))
        yield PatternPlan(self._options, self._block, self._pool, target.sparsity)


def prepare(spec: PruneSpec, ctx: Context, cache: Path | None) -> PatternPlanner:
    """Record the dense model's states, and return the planner."""
    del cache
    assert isinstance(spec.method, AdmmPattern), "the registry leads here by these options"
    return PatternPlanner(spec.method, ctx)
