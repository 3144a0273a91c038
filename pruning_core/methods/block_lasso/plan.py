"""``block-lasso``: whole rows or columns of blocks go, one threshold for all matrices.

Li et al. 2020 (arXiv 2009.08065) for the structure and the reweighted group Lasso that trains towards it. The one-shot tier
has no training: segments are priced on the Gram of their inputs (`pruning_core.search.segments`), the threshold says how much
of each matrix goes, and ADMM with the projection onto the largest segments finds which, layer after layer, as in
``admm-pattern``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pruning_core.arch.linear import inputs_of, outputs_of, weight_of
from pruning_core.checks.coverage import MatrixShape, check_blocks
from pruning_core.errors import PruningError
from pruning_core.evidence.context import Context
from pruning_core.methods.block_lasso.recipe import Groups, LassoRecipe
from pruning_core.patterns.segments import LargestSegments, Segments
from pruning_core.search.segments import gone_by_threshold, gone_uniformly, segment_costs, segment_scales
from pruning_core.spec.grammar import SegmentBlock
from pruning_core.spec.method import BlockLasso
from pruning_core.spec.prune import SparsityTarget, Target
from pruning_core.stats.fisher import probe
from pruning_core.stats.linears import LinearStatistics, linear_statistics


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
    """

    options: BlockLasso
    blocks: Mapping[str, SegmentBlock]
    projections: Mapping[str, LargestSegments]
    sparsity: float
    tolerance: float
    groups: Mapping[str, Groups]

    @property
    def recipe(self) -> LassoRecipe:
        """What the trained tier holds the weights to."""
        return LassoRecipe(self.groups, self.sparsity, self.options.training)


class BlockPlanner:
    """Plans the targets of one run: the dense model runs forward and back once for all of them."""

    def __init__(self, options: BlockLasso, ctx: Context) -> None:
        """Gather what the inputs and outputs of every linear say, and record the dense model's states."""
        self._options, self._ctx = options, ctx
        self._linears = ctx.evidence.dense.linears
        self._blocks = {name: options.block_for(outputs_of(own), inputs_of(own)) for name, own in self._linears.items()}
        shapes = [MatrixShape(name, outputs_of(own), inputs_of(own)) for name, own in self._linears.items()]
        check_blocks(shapes, options)
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
