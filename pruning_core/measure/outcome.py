"""The outcome of one checkpoint, recounted from its written files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.masks import Mask
from pruning_core.arch.structure import groups_of
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import RULES, Recounted, kept_macs, kept_weights
from pruning_core.errors import TargetMissed
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.rounded import storage_of
from pruning_core.report.also import AlsoReport
from pruning_core.report.engines import EngineReport, ExportReport
from pruning_core.report.healing import HealingReport
from pruning_core.report.ledger import LedgerReport
from pruning_core.report.report import (
    AcceptanceReport,
    CompressedReport,
    CrossReport,
    ExpertsReport,
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
from pruning_core.report.storage import StorageReport
from pruning_core.report.training import TrainingReport
from pruning_core.report.where import WhereReport
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.targets import TARGET_METRICS, Target, amount_text
from pruning_core.tasks.base import TaskModel


@dataclass(frozen=True, slots=True)
class ShapeCount:
    """Counts that follow from the shapes of a written checkpoint's tensors.

    Attributes:
        recounted: Units, parameters and latency, from which the metrics of targets are recounted.
        macs: Multiply-accumulates of the blocks.
        bytes: Bytes of the weight files.
        layers: Report of each block: its units, and the repair of its sublayers.
        storage: Types of the stored matrices; None where all are floating-point numbers.
    """

    recounted: Recounted
    macs: IntPair
    bytes: IntPair
    layers: tuple[LayerReport, ...]
    storage: StorageReport | None = None


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
        dense: The dense model's adapter.
        length: Mean real sequence length of the task, in tokens.
        mask: The units that stayed.
        sublayers: Report of the repair of each sublayer.
        latency: Latency of the checkpoint as loaded back.
    """
    groups = dense.groups
    dense_files, written = read_checkpoint(source.whole_source), read_checkpoint(folder)
    before, after = [group.size for group in groups], _sizes(groups, groups_of(written), mask)
    recounted = Recounted(
        groups=groups,
        kept=after,
        length=length,
        parameters=(source.whole_parameters, written.parameters),
        sparsity=1 - kept_weights(groups, after) / kept_weights(groups, before),
        covered_sparsity=None,
        latency_ms=(latency.dense, latency.pruned),
        nbytes=written.weight_bytes,
    )
    return ShapeCount(
        recounted=recounted,
        macs=IntPair(dense=round(kept_macs(groups, before, length)), pruned=round(kept_macs(groups, after, length))),
        bytes=IntPair(dense=dense_files.weight_bytes, pruned=written.weight_bytes),
        layers=_layers(groups, mask, after, sublayers),
        storage=storage_of(written),
    )


@dataclass(frozen=True, slots=True)
class ZeroCount:
    """Zeros in the matrices of a written checkpoint.

    Attributes:
        sparsity: Share of the prunable weights that are zero or removed.
        covered_sparsity: The same share of the weights in whole blocks; None if the method has no pattern target.
        report: The report of all matrices.
    """

    sparsity: float
    covered_sparsity: float | None
    report: PatternReport


@dataclass(frozen=True, slots=True)
class Measured:
    """All counts and measurements of a written checkpoint in the process that wrote it.

    Attributes:
        target: The requested target.
        shapes: Counts that follow from shapes.
        zeros: Zeros in the matrices; None if the method sets none.
        quality: Quality of the checkpoint as loaded back.
        latency: Latency of the checkpoint as loaded back.
        layout: Layout of its files.
        stored_dtype: Data type of its weights.
        floor: The quality floor and the quality achieved; None if there is no floor.
        training: Report of the training; None if there was none.
        healing: Report of the healing; None if there was none.
        where: Where quality was lost; None for tasks that do not tell.
        also: Quality on further evaluation sets.
        ledger: Capabilities beside the task; None where none was asked for.
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
    where: WhereReport | None = None
    also: tuple[AlsoReport, ...] = ()
    ledger: LedgerReport | None = None
    healing: HealingReport | None = None

    @property
    def recounted(self) -> Recounted:
        """The counts for the metrics of targets: those of shapes, with the sparsity of the zeros if the method sets any."""
        if self.zeros is None:
            return self.shapes.recounted
        return replace(self.shapes.recounted, sparsity=self.zeros.sparsity, covered_sparsity=self.zeros.covered_sparsity)

    @property
    def target_report(self) -> TargetReport:
        """The requested and the achieved target."""
        target = self.target
        return TargetReport(
            metric=target.metric,
            requested=target.requested,
            achieved=RULES[target.metric].recount(self.recounted),
            tolerance=target.tolerance,
        )

    def outcome(
        self,
        *,
        acceptance: AcceptanceReport | None,
        onnx: OnnxReport | None,
        compressed: CompressedReport | None,
        exports: tuple[ExportReport, ...] = (),
        engines: tuple[EngineReport, ...] = (),
    ) -> Outcome:
        """Make the outcome from the measurements and the proof of a fresh process. Outcomes are made only here.

        Args:
            acceptance: The findings of the fresh process; None if it found nothing.
            onnx: Report of the ONNX graph; None if none was requested.
            compressed: Report of the compressed form; None if none was requested.
            exports: Reports of further formats.
            engines: Reports of the engines that were asked for.
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
            healing=self.healing,
            compressed=compressed,
            exports=exports,
            engines=engines,
            where=self.where,
            also=self.also,
            ledger=self.ledger,
            pattern=None if self.zeros is None else self.zeros.report,
            storage=self.shapes.storage,
        )


def _sizes(groups: tuple[UnitGroup, ...], written: tuple[UnitGroup, ...], mask: Mask) -> list[int]:
    """Return the written sizes of the dense model's groups, with 0 for those of removed blocks and of absent attentions."""
    counts = mask.counts()
    had = {group.layer for group in groups if group.kind == "head"}
    there = {group.layer for group, count in zip(groups, counts, strict=True) if count or group.layer not in had}
    found = iter(written)
    return [
        next(found).size if group.layer in there and (count or group.kind != "head") else 0
        for group, count in zip(groups, counts, strict=True)
    ]


def _layers(
    dense: tuple[UnitGroup, ...], mask: Mask, written: list[int], sublayers: tuple[SublayerReport, ...]
) -> tuple[LayerReport, ...]:
    blocks: dict[int, list[int]] = {}
    for index, group in enumerate(dense):
        blocks.setdefault(group.layer, []).append(index)
    nothing = SublayerReport(solver="none", status="skipped", iterations=0)
    found: list[LayerReport] = []
    for layer, (*attentions, last) in blocks.items():
        width = dense[last].unit_width if dense[last].kind == "expert" else 1
        first = attentions[0] if attentions else None  # none where the dense model is a bundle whose layer has none
        found.append(
            LayerReport(
                layer=layer,
                dense_heads=0 if first is None else dense[first].size,
                kept_heads=0 if first is None else written[first],
                head_indices=() if first is None else tuple(mask.indices(first).tolist()),
                dense_neurons=dense[last].size * width,
                kept_neurons=written[last] * width,
                experts=_experts(dense[last], mask, written[last], last) if dense[last].kind == "expert" else None,
                attention=nothing if first is None else sublayers[first],
                ffn=sublayers[last],
                cross=_cross(dense, mask, written, sublayers, attentions[1]) if attentions[1:] else None,
            )
        )
    return tuple(found)


def _experts(dense: UnitGroup, mask: Mask, written: int, index: int) -> ExpertsReport:
    return ExpertsReport(dense=dense.size, kept=written, indices=tuple(mask.indices(index).tolist()))


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
    """Return the error for a missed target."""
    if target.engine is not None:
        return TargetMissed(
            f"asked for latency {target.requested:g} within {target.tolerance:g} {target.where}; {target.achieved:.4f} was "
            f"measured, where a table that was measured there predicted {target.predicted:.4f}. The machine may have been "
            "busy: run it again, or allow a larger target.tolerance",
            param="target",
        )
    why = (
        "clocks of this machine may be too noisy for it, allow a larger target.tolerance or more latency.repeats"
        if TARGET_METRICS[target.metric].measured
        else "units of this model may be too coarse, allow a larger target.tolerance"
    )
    return TargetMissed(
        f"asked for {target.asked} within {target.tolerance:g}, achieved {amount_text(target.metric, target.achieved)}; {why}",
        param="target",
    )
