"""What one checkpoint achieved, recounted from its written files."""

from __future__ import annotations

from pathlib import Path

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.masks import Mask
from pruning_core.arch.structure import groups_of
from pruning_core.arch.units import UnitGroup
from pruning_core.budgets import kept_macs, kept_weights
from pruning_core.errors import TargetMissed
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.report.report import (
    CrossReport,
    IntPair,
    LatencyReport,
    LayerReport,
    Outcome,
    QualityReport,
    SparsityReport,
    SublayerReport,
    TargetReport,
)
from pruning_core.spec.prune import Target
from pruning_core.tasks.base import TaskModel


def measure_outcome(
    target: Target,
    folder: Path,
    *,
    source: TaskModel,
    dense: ModelAdapter,
    length: float,
    mask: Mask,
    sublayers: tuple[SublayerReport, ...],
    quality: QualityReport,
    latency: LatencyReport,
) -> Outcome:
    """Recount everything that can be counted from the written files, and put it beside what was measured.

    Args:
        target: What was asked for.
        folder: The written checkpoint.
        source: The dense model.
        dense: Its sublayers.
        length: Mean real sequence length of the task, in tokens.
        mask: Which units stayed.
        sublayers: How the repairs went.
        quality: Of the checkpoint as loaded back.
        latency: Of the checkpoint as loaded back.
    """
    groups = dense.groups
    dense_files, written = read_checkpoint(source.source), read_checkpoint(folder)
    before, after = [group.size for group in groups], _sizes(groups, groups_of(written), mask)
    dense_macs, pruned_macs = kept_macs(groups, before, length), kept_macs(groups, after, length)
    parameters = IntPair(dense=source.parameter_count(), pruned=written.parameters)
    sparsity = 1 - kept_weights(groups, after) / kept_weights(groups, before)
    achieved = {
        "sparsity": sparsity,
        "pattern": sparsity,
        "macs": pruned_macs / dense_macs,
        "params": parameters.pruned / parameters.dense,
        "latency": latency.pruned / latency.dense,
    }
    return Outcome(
        target=TargetReport(
            metric=target.metric,
            requested=target.requested,
            achieved=achieved[target.metric],
            tolerance=target.tolerance,
        ),
        sparsity=SparsityReport(achieved=sparsity),
        macs=IntPair(dense=round(dense_macs), pruned=round(pruned_macs)),
        parameters=parameters,
        bytes=IntPair(dense=dense_files.weight_bytes, pruned=written.weight_bytes),
        quality=quality,
        latency_ms=latency,
        layers=_layers(groups, mask, after, sublayers),
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
        if target.metric == "latency"
        else "units of this model may be too coarse, allow a larger target.tolerance"
    )
    return TargetMissed(
        f"asked for {target.metric} {target.requested:g} within {target.tolerance:g}, achieved {target.achieved:.4f}; {why}",
        param="target",
    )
