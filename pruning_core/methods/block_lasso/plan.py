"""Plans of ``block-lasso``: rows or columns of blocks are pruned, by one threshold for all matrices.

Li et al. 2020 (arXiv 2009.08065) for the structure and the reweighted group Lasso that trains towards it. The one-shot tier
has no training. Segments are priced on the Gram matrix of their inputs (`pruning_core.search.segment_prices`), and the
threshold decides how many weights of each matrix are pruned. ADMM with the projection onto the largest segments then finds
which ones, layer after layer, as in ``admm-pattern``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from pruning_core.arch.adapter import adapt
from pruning_core.arch.linear import inputs_of, outputs_of, weight_of
from pruning_core.errors import PruningError
from pruning_core.evidence.context import Context, Evidence
from pruning_core.measure.outcome import ZeroCount
from pruning_core.methods.base import Applied, TrainingPlan, Written
from pruning_core.methods.block_lasso.outcome import count_segments, segment_hints
from pruning_core.methods.block_lasso.penalty import Groups
from pruning_core.methods.block_lasso.recipe import LassoRecipe
from pruning_core.methods.zeroing import apply_zeros_, training_plan, zero_hints
from pruning_core.patterns.segments import LargestSegments, Segments
from pruning_core.recovery.dead import remove_dead_
from pruning_core.report.report import Outcome
from pruning_core.search.segment_prices import gone_by_threshold, gone_uniformly, segment_costs, segment_scales
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.grammar import MatrixShape, SegmentBlock
from pruning_core.spec.method import BlockLasso
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.spec.targets import SparsityTarget, Target
from pruning_core.stats.dense_states import ensure_states
from pruning_core.stats.fisher import probe
from pruning_core.stats.linears import LinearStatistics, as_piece, from_piece, linear_statistics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Dead units may take nonzero weights with them, up to this share of the target's tolerance; rounding may zero a few more.
_ROOM = 0.5


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The segments of every prunable matrix, and how many of them are pruned.

    Attributes:
        options: The method's options.
        blocks: Blocks of each matrix, by module path, in the order in which they are pruned.
        projections: Projection onto the supports of each matrix.
        sparsity: Share of all prunable weights that are pruned.
        tolerance: Share of all prunable weights that may be pruned beyond it.
        groups: Segments of each matrix and the scales of their norms, for training.
        zeroes_weights: True: shapes stay, except where units are dead.
    """

    options: BlockLasso
    blocks: Mapping[str, SegmentBlock]
    projections: Mapping[str, LargestSegments]
    sparsity: float
    tolerance: float
    groups: Mapping[str, Groups]
    zeroes_weights: bool = True

    @property
    def training(self) -> TrainingPlan | None:
        """The training that tier ``trained`` adds; None for ``one-shot``."""
        if not self.options.trains:
            return None
        options = self.options.training
        make = partial(LassoRecipe, self.groups, self.sparsity, options)
        first = options.but(learning_rate=options.lasso_learning_rate)
        if options.chooses == "shares":
            return training_plan(make, options, first, self.options, self._shares_left)
        return training_plan(make, options, first, self.options.but(selection="magnitude"))

    def _shares_left(self, chosen: PreTrainedModel) -> dict[str, LargestSegments]:
        """Return the projections that prune as many weights of each matrix as are zero in a model."""
        zeros = {name: int((weight_of(linear) == 0).sum()) for name, linear in adapt(chosen).linears.items()}
        return {name: replace(own, gone=zeros[name]) for name, own in self.projections.items()}

    def apply_(
        self, student: PreTrainedModel, evidence: Evidence, recovery: RecoverySpec, *, on_sublayer: Callable[[int], None]
    ) -> Applied:
        """Select the segments of every matrix, and refit the kept weights."""
        return apply_zeros_(student, self.projections, evidence, self.options, recovery, on_sublayer=on_sublayer)

    def finish_(self, student: PreTrainedModel, applied: Applied, layout: Layout) -> Applied:
        """Remove dead units, if the layout can express it."""
        match layout:
            case "stock" | "serve":  # a dead unit here and there is no width that an engine takes
                return applied
            case "per_layer":
                return replace(applied, mask=remove_dead_(adapt(student), self._allowance(student)))
            case _:
                assert_never(layout)

    def _allowance(self, student: PreTrainedModel) -> int:
        """Count the nonzero weights that may be removed with dead units."""
        everything = zeros = 0
        for _, linear in adapt(student).held_linears():
            everything += linear.weight.numel()
            zeros += linear.weight.numel() - int(linear.weight.count_nonzero())
        return max(0, int((self.sparsity + _ROOM * self.tolerance) * everything) - zeros)

    def recount(self, written: Written) -> ZeroCount:
        """Count the segments in the written matrices."""
        return count_segments(written, self.options, self.blocks)

    def zero_blocks(self, names: Sequence[str]) -> Mapping[str, SegmentBlock]:
        """Return the blocks of each matrix."""
        return {name: self.blocks[name] for name in names}

    def hints(self, outcome: Outcome) -> list[str]:
        """Return what zeros do not save, and hints on smaller segments, emptied matrices and removed units."""
        return [*zero_hints(outcome), *segment_hints(outcome)]


class BlockPlanner:
    """Planner of one run: the dense model runs one forward and one backward pass for all targets."""

    def __init__(self, options: BlockLasso, ctx: Context) -> None:
        """Gather the statistics of every linear, and record the dense model's states."""
        self._options, self._ctx = options, ctx
        self._linears = ctx.evidence.dense.linears
        self._blocks = {name: options.block_for(outputs_of(own), inputs_of(own)) for name, own in self._linears.items()}
        shapes = [MatrixShape(name, outputs_of(own), inputs_of(own)) for name, own in self._linears.items()]
        options.check_matrices(shapes, ())
        with ctx.clock.stage("score", len(ctx.evidence.calibration.batches)) as step:
            lengths = {name: block.length if block.segment == "row" else 1 for name, block in self._blocks.items()}
            self._statistics = ctx.statistics.found(
                "scores",
                lambda: {**ctx.evidence.key, "method": options.name, "lengths": lengths, "seed": ctx.seed},
                lambda: self._gathered(lengths, step),
                pack=as_piece,
                unpack=lambda piece: from_piece(piece, list(self._linears), ctx.task_model.device),
            )
            ensure_states(ctx, step, as_in="linears")

    def _gathered(self, lengths: Mapping[str, int], step: Callable[[int], None]) -> dict[str, LinearStatistics]:
        ctx = self._ctx
        return linear_statistics(
            ctx.task_model,
            self._linears,
            lengths,
            ctx.evidence.calibration.batches,
            probe(ctx.task_model.task_type, ctx.generator("probe")),
            dtype=ctx.evidence.dtype,
            on_batch=step,
            states=ctx.evidence.states,
            written=ctx.evidence.dense.written,
            times=ctx.evidence.dense.times,
        )

    def plans(self, target: Target) -> Iterator[BlockPlan]:
        """Yield the one plan for a target.

        Raises:
            PruningError: The target is no sparsity; a validated spec has no such target.
        """
        if not isinstance(target, SparsityTarget):
            raise PruningError(f"block-lasso has no plan for a target of {target.metric}", param="target")
        with self._ctx.clock.stage("search"):
            gone = self._gone(target.sparsity)
        weighted = self._options.selection == "admm" and self._options.threshold == "global"
        projections = {
            name: LargestSegments(
                Segments.of(self._blocks[name]), gone[name], self._statistics[name].output_weights if weighted else None
            )
            for name in self._linears
        }
        yield BlockPlan(self._options, self._blocks, projections, target.sparsity, target.tolerance, self._groups())

    def _groups(self) -> dict[str, Groups]:
        found: dict[str, Groups] = {}
        for name, linear in self._linears.items():
            segments, statistics = Segments.of(self._blocks[name]), self._statistics[name]
            scales = segment_scales(statistics, segments, (inputs_of(linear), outputs_of(linear)))
            found[name] = Groups(segments, scales)
        return found

    def _gone(self, sparsity: float) -> dict[str, int]:
        """Decide how many weights of each matrix are pruned."""
        if self._options.threshold == "uniform":
            return gone_uniformly({name: own.weight.numel() for name, own in self._linears.items()}, sparsity)
        costs, sizes = [], []
        for name, linear in self._ctx.evidence.dense.held_linears():
            segments, weights = Segments.of(self._blocks[name]), weight_of(linear).T
            sizes.append(segments.sizes(tuple(weights.shape), weights.device))
            if self._options.selection == "magnitude":
                costs.append(segments.sums(weights.square()))
            else:
                costs.append(segment_costs(weights, self._statistics[name], segments))
        return dict(zip(self._linears, gone_by_threshold(costs, sizes, sparsity), strict=True))


def prepare(spec: PruneSpec, ctx: Context, cache: Path | None) -> BlockPlanner:
    """Gather the statistics of every matrix, and return the planner."""
    del cache
    assert isinstance(spec.method, BlockLasso), "the registry leads here by these options"
    return BlockPlanner(spec.method, ctx)
