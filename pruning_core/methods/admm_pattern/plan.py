"""``admm-pattern``: sparsity patterns by ADMM, one shot.

Wang 2024 (arXiv 2407.08334) for patterns and their pools; ALPS, Meng et al. 2024 (arXiv 2406.07831), for ADMM and the refit on
the Gram of a layer's inputs, which need neither labels nor training. Here is what is asked for and what it stands on; the work
on each matrix is `pruning_core.recovery.sparsify`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.linear import weight_of
from pruning_core.checks.coverage import MatrixShape, check_coverage
from pruning_core.checks.method import sparsities_of
from pruning_core.errors import PruningError
from pruning_core.evidence.context import Context
from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.methods.admm_pattern.recipe import PatternRecipe
from pruning_core.patterns.pool import mine_pool
from pruning_core.patterns.project import LargestFraction, LargestOfBlock, LargestOfPool, Projection
from pruning_core.recovery.sparsify import record_dense
from pruning_core.shapes import Bool, Float
from pruning_core.spec.grammar import BlockPattern
from pruning_core.spec.prune import PatternTarget, SparsityTarget, Target


@dataclass(frozen=True, slots=True)
class PatternPlan:
    """What every prunable matrix is held to.

    Attributes:
        options: The method's.
        block: Its pattern; None for unstructured.
        pool: Arrangements that blocks may have; any when None.
        sparsity: Share of the weights, of each matrix or of each block, that go.
    """

    options: AdmmPattern
    block: BlockPattern | None
    pool: Bool[Tensor, "patterns size"] | None
    sparsity: float

    @property
    def projection(self) -> Projection:
        """The rule for supports."""
        if self.block is None:
            return LargestFraction(self.sparsity)
        return LargestOfBlock(self.block) if self.pool is None else LargestOfPool(self.block, self.pool)

    @property
    def recipe(self) -> PatternRecipe:
        """What the trained tier holds the weights to."""
        return PatternRecipe(self.projection, self.options.training)


@dataclass(frozen=True, slots=True)
class _Energies:
    """The squared weights of every linear, input-major, made anew each time that they are asked for."""

    dense: ModelAdapter

    def __iter__(self) -> Iterator[Float[Tensor, "k d"]]:
        """Give them in order."""
        for _, linear in self.dense.held_linears():
            yield weight_of(linear).float().T.square()


class PatternPlanner:
    """Plans the targets of one run: the dense model runs once, and the pool is mined once."""

    def __init__(self, options: AdmmPattern, ctx: Context) -> None:
        """Record the dense model's states, and mine a pool where blocks have several outputs."""
        self._options, self._ctx = options, ctx
        self._block, self._pool = options.block, None
        with ctx.clock.stage("score", max(1, ctx.evidence.states.plan.batches)) as step:
            record_dense(ctx.task_model, ctx.evidence, step)
        if self._block is not None and not self._block.one_row and options.pool is not None:
            with ctx.clock.stage("search"):
                self._pool = mine_pool(_Energies(ctx.evidence.dense), self._block, options.pool, ctx.generator("pool"))

    def plans(self, target: Target) -> Iterator[PatternPlan]:
        """Give the one plan of a target.

        Raises:
            PruningError: The target is none of a pattern's; a validated spec has no such.
            TargetUnreachable: The pattern does not fit the model.
        """
        if not isinstance(target, SparsityTarget | PatternTarget):
            raise PruningError(f"admm-pattern has no plan for a target of {target.metric}", param="target")
        linears = self._ctx.evidence.dense.linears
        shapes = [MatrixShape(path, *weight_of(own).shape) for path, own in linears.items()]
        check_coverage(self._options.pattern, shapes, sparsities_of([target]))
        yield PatternPlan(self._options, self._block, self._pool, target.sparsity)
