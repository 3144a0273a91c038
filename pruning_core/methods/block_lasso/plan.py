"""``block-lasso``: whole rows or columns of blocks go, one threshold for all matrices.

Li et al. 2020 (arXiv 2009.08065) for the structure and the reweighted group Lasso that trains towards it. The one-shot tier
has no training: segments are priced on the Gram of their inputs (`pruning_core.search.segments`), the threshold says how much
of each matrix goes, and ADMM with the projection onto the largest segments finds which, layer after layer, as in
``admm-pattern``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from pruning_core.arch.adapter import adapt
from pruning_core.arch.linear import inputs_of, outputs_of, weight_of
from pruning_core.errors import PruningError
from pruning_core.evidence.context import Context, Evidence
from pruning_core.measure.outcome import ZeroCount
from pruning_core.methods.base import Applied, TrainingPlan, Written
from pruning_core.methods.block_lasso.outcome import count_segments, segment_hints
from pruning_core.methods.block_lasso.recipe import Groups, LassoRecipe
from pruning_core.methods.zeroing import apply_zeros_, zero_hints
from pruning_core.patterns.segments import LargestSegments, Segments
from pruning_core.recovery.dead import remove_dead_
from pruning_core.report.report import Outcome
from pruning_core.search.segments import gone_by_threshold, gone_uniformly, segment_costs, segment_scales
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.grammar import MatrixShape, SegmentBlock
from pruning_core.spec.method import BlockLasso
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.spec.targets import SparsityTarget, Target
from pruning_core.stats.fisher import probe
from pruning_core.stats.linears import LinearStatistics, linear_statistics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Share of the target's tolerance that weights beside zeros may take when dead units go; rounding may zero a few more.
_ROOM = 0.5


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """What every prunable matrix is held to.

    Attributes:
        options: The method's.
        blocks: Of each matrix, by module path, in the order in which they are pruned.
        projections: The rule for the supports of each.
        sparsity: Share of all prunable weights that go.
        tolerance: Share of them that may go beyond it.
        groups: The segments with what their norms count, for training.
        zeroes_weights: True: shapes stay, but of units that zeros have killed.
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
        """The training that tier ``trained`` adds."""
        if not self.options.trains:
            return None
        options = self.options.training
        return TrainingPlan(LassoRecipe(self.groups, self.sparsity, options), options, from_dense=options.start == "dense")

    def apply_(
        self, student: PreTrainedModel, evidence: Evidence, recovery: RecoverySpec, *, on_sublayer: Callable[[int], None]
    ) -> Applied:
        """Choose the segments of every matrix, and refit what stays."""
        return apply_zeros_(student, self.projections, evidence, self.options, recovery, on_sublayer=on_sublayer)

    def finish_(self, student: PreTrainedModel, applied: Applied, layout: Layout) -> Applied:
        """Remove the units that zeros have killed, where the layout can say so."""
        match layout:
            case "stock":
                return applied
            case "per_layer":
                return replace(applied, mask=remove_dead_(adapt(student), self._allowance(student)))
            case _:
                assert_never(layout)

    def _allowance(self, student: PreTrainedModel) -> int:
        """Count the weights other than zero that may be removed with dead units."""
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
        """Say what zeros do not buy, what blocks did not divide, and what was removed with its unit."""
        return [*zero_hints(outcome), *segment_hints(outcome)]


class BlockPlanner:
    """Plans the targets of one run: the dense model runs forward and back once for all of them."""

    def __init__(self, options: BlockLasso, ctx: Context) -> None:
        """Gather what the inputs and outputs of every linear say, and record the dense model's states."""
        self._options, self._ctx = options, ctx
        self._linears = ctx.evidence.dense.linears
        self._blocks = {name: options.block_for(outputs_of(own), inputs_of(own)) for name, own in self._linears.items()}
        shapes = [MatrixShape(name, outputs_of(own), inputs_of(own)) for name, own in self._linears.items()]
        options.check_matrices(shapes, ())
        with ctx.clock.stage("score", len(ctx.evidence.calibration.batches)) as step:
            self._statistics: dict[str, LinearStatistics] = linear_statistics(
                ctx.task_model,
                self._linears,
                {name: block.length if block.segment == "row" else 1 for name, block in self._blocks.items()},
                ctx.evidence.calibration.batches,
                probe(ctx.task_model.task_type, ctx.generator("probe")),
                dtype=ctx.evidence.dtype,
                on_batch=step,
                states=ctx.evidence.states,
                written=ctx.evidence.dense.written,
            )

    def plans(self, target: Target) -> Iterator[BlockPlan]:
        """Give the one plan of a target.

        Raises:
            PruningError: The target is no sparsity; a validated spec has no such.
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
        """Decide how many weights of each matrix go."""
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
    """Gather the statistics of every matrix, and return what plans segments."""
    del cache
    assert isinstance(spec.method, BlockLasso), "the registry leads here by these options"
    return BlockPlanner(spec.method, ctx)
