"""What one checkpoint achieved, recounted from its written files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.masks import Mask
from pruning_core.arch.structure import groups_of
from pruning_core.arch.units import UnitGroup
from pruning_core.budgets import RULES, Recounted, kept_macs, kept_weights
from pruning_core.errors import TargetMissed
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.report.report import (
    AcceptanceReport,
    CompressedReport,
    CrossReport,
    FloorReport,
    IntPair,
    LatencyReport,
    LayerReport,
    OnnxReport,
    Outcome,
    PatternReport,
    QualityReport,
    SparsityReport,
    SublayerReport,
    TargetReport,
)
from pruning_core.report.training import TrainingReport
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.targets import TARGET_METRICS, Target
from pruning_core.tasks.base import TaskModel


@dataclass(frozen=True, slots=True)
class ShapeCount:
    """What the shapes of a written checkpoint's tensors say.

    Attributes:
        recounted: Units, parameters, and the latency beside them, as metrics of targets are recounted from.
        macs: Multiply-accumulates of the blocks.
        bytes: Of the weight files.
        layers: Units of each block, and how their repair went.
    """

    recounted: Recounted
    macs: IntPair
    bytes: IntPair
    layers: tuple[LayerReport, ...]


def count_shapes(
    folder: Path,
    *,
    source: TaskModel,
    dense: ModelAdapter,
    length: float,
    mask: Mask,
    sublayers: tuple[SublayerReport, ...],
    latency: LatencyReport,
) -> ShapeCount:
    """Count the units, parameters and bytes of a written checkpoint.

    Args:
        folder: The written checkpoint.
        source: The dense model.
        dense: Its sublayers.
        length: Mean real sequence length of the task, in tokens.
        mask: Which units stayed.
        sublayers: How the repairs went.
        latency: Of the checkpoint as loaded back.
    """
    groups = dense.groups
    dense_files, written = read_checkpoint(source.source), read_checkpoint(folder)
    before, after = [group.size for group in groups], _sizes(groups, groups_of(written), mask)
    recounted = Recounted(
        groups=groups,
        kept=after,
        length=length,
        parameters=(source.parameter_count(), written.parameters),
        sparsity=1 - kept_weights(groups, after) / kept_weights(groups, before),
        covered_sparsity=None,
        latency_ms=(latency.dense, latency.pruned),
    )
    return ShapeCount(
        recounted=recounted,
        macs=IntPair(dense=round(kept_macs(groups, before, length)), pruned=round(kept_macs(groups, after, length))),
        bytes=IntPair(dense=dense_files.weight_bytes, pruned=written.weight_bytes),
        layers=_layers(groups, mask, after, sublayers),
    )


@dataclass(frozen=True, slots=True)
class ZeroCount:
    """What the matrices of a written checkpoint hold.

    Attributes:
        sparsity: Share of the prunable weights that are zero or gone.
        covered_sparsity: Of the weights in whole blocks; None where the structure has no blocks.
        report: Matrix by matrix.
    """

    sparsity: float
    covered_sparsity: float | None
    report: PatternReport


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that was counted and measured of a written checkpoint in the process that wrote it.

    Attributes:
        target: What was asked for.
        shapes: Counted by shapes.
        zeros: Counted in the matrices; None where the method sets no zeros.
        quality: Of the checkpoint as loaded back.
        latency: Of the checkpoint as loaded back.
        layout: Of its files.
        stored_dtype: Type of its weights.
        floor: The quality floor and what was kept of it; None where there is none.
        training: How the training went; None where there was none.
    """

    target: Target
    shapes: ShapeCount
    zeros: ZeroCount | None
    quality: QualityReport
    latency: LatencyReport
    layout: Layout
    stored_dtype: str
    floor: FloorReport | None
    training: TrainingReport | None

    @property
    def recounted(self) -> Recounted:
        """What the metrics of targets are recounted from: shapes, and zeros where there are any."""
        if self.zeros is None:
            return self.shapes.recounted
        return replace(self.shapes.recounted, sparsity=self.zeros.sparsity, covered_sparsity=self.zeros.covered_sparsity)

    @property
    def target_report(self) -> TargetReport:
        """The target beside what was achieved of it."""
        target = self.target
        return TargetReport(
            metric=target.metric,
            requested=target.requested,
            achieved=RULES[target.metric].recount(self.recounted),
            tolerance=target.tolerance,
        )

    def outcome(
        self, *, acceptance: AcceptanceReport | None, onnx: OnnxReport | None, compressed: CompressedReport | None
    ) -> Outcome:
        """Put the proof of a fresh process beside what was measured: the one place where an outcome is made.

        Args:
            acceptance: What the fresh process found; None where it found nothing.
            onnx: The graph, where one was asked for.
            compressed: The compressed form, likewise.
        """
        recounted = self.recounted
        dense, pruned = recounted.parameters
        return Outcome(
            target=self.target_report,
            sparsity=SparsityReport(achieved=recounted.sparsity),
            macs=self.shapes.macs,
            parameters=IntPair(dense=dense, pruned=pruned),
            bytes=self.shapes.bytes,
            quality=self.quality,
            latency_ms=self.latency,
            layers=self.shapes.layers,
            layout=self.layout,
            stored_dtype=self.stored_dtype,
            quality_floor=self.floor,
            acceptance=acceptance,
            onnx=onnx,
            training=self.training,
            compressed=compressed,
            pattern=None if self.zeros is None else self.zeros.report,
        )


def _sizes(groups: tuple[UnitGroup, ...], written: tuple[UnitGroup, ...], mask: Mask) -> list[int]:
    """Give the written sizes in the dense model's order, with zeros for blocks that are gone."""
    counts = mask.counts()
    there = {group.layer for group, count in zip(groups, counts, strict=True) if group.kind == "head" and count}
    found = iter(written)
    return [next(found).size if group.layer in there else 0 for group in groups]


def _layers(
    dense: tuple[UnitGroup, ...], mask: Mask, written: list[int], sublayers: tuple[SublayerReport, ...]
) -> tuple[LayerReport, ...]:
    blocks: dict[int, list[int]] = {}
    for index, group in enumerate(dense):
        blocks.setdefault(group.layer, []).append(index)
    return tuple(
        LayerReport(
            layer=layer,
            dense_heads=dense[first].size,
            kept_heads=written[first],
            head_indices=tuple(mask.indices(first).tolist()),
            dense_neurons=dense[last].size,
            kept_neurons=written[last],
            attention=sublayers[first],
            ffn=sublayers[last],
            cross=_cross(dense, mask, written, sublayers, between[0]) if between else None,
        )
        for layer, (first, *between, last) in blocks.items()
    )


def _cross(
    dense: tuple[UnitGroup, ...], mask: Mask, written: list[int], sublayers: tuple[SublayerReport, ...], index: int
) -> CrossReport:
    return CrossReport(
        dense_heads=dense[index].size,
        kept_heads=written[index],
        head_indices=tuple(mask.indices(index).tolist()),
        attention=sublayers[index],
    )


def target_missed(target: TargetReport) -> TargetMissed:
    """Say how a target was missed."""
    why = (
        "clocks of this machine may be too noisy for it, allow a larger target.tolerance or more latency.repeats"
        if TARGET_METRICS[target.metric].measured
        else "units of this model may be too coarse, allow a larger target.tolerance"
    )
    return TargetMissed(
        f"asked for {target.metric} {target.requested:g} within {target.tolerance:g}, achieved {target.achieved:.4f}; {why}",
        param="target",
    )
