"""Whether method, layout and formats can work on a model, as far as its configuration and shapes tell. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pruning_core.arch.alike import Build, check_alike
from pruning_core.arch.structure import CheckpointStructure, matrices_of
from pruning_core.arch.units import UnitGroup
from pruning_core.budgets import budget_for
from pruning_core.checks.coverage import MatrixShape, check_blocks, check_coverage
from pruning_core.errors import DatasetInvalid, TargetUnreachable, UnsupportedArchitecture
from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.methods.fisher_cg.options import FisherCG
from pruning_core.spec.method import BlockLasso
from pruning_core.spec.prune import KeepTarget, PruneSpec, SparsityTarget, Target
from pruning_core.spec.tasks import KINDS


def check_request(spec: PruneSpec) -> None:
    """Check what a task and a method, or a task and a format, make of each other, whatever the model.

    Raises:
        DatasetInvalid: Labels are needed, and the task has none that make a loss.
        UnsupportedArchitecture: There is no graph of such models.
    """
    kind, method = KINDS[spec.task.type], spec.method
    if not kind.has_loss and isinstance(method, FisherCG) and method.labels == "use":
        raise DatasetInvalid("labels are required by method.labels = use, but the task has none", param="method.labels")
    trains = isinstance(method, AdmmPattern | BlockLasso) and method.tier == "trained" and method.training.needs_labels
    if not kind.has_loss and trains:
        raise DatasetInvalid(
            f"the trained tier needs labels that make a loss, and those of a {spec.task.type} task make none: set "
            "method.training.distillation to 1, so that the dense model's outputs alone are trained on, or take tier one-shot",
            param="method.training.distillation",
        )
    if kind.label == "text" and "onnx" in spec.artifacts.formats:
        raise UnsupportedArchitecture(
            f"{spec.task.type} needs a graph for each half of a model and a cache between them: no such graphs are written; "
            "leave onnx out",
            param="artifacts.formats",
        )


def check_method(
    spec: PruneSpec,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    structure: CheckpointStructure,
    groups: Sequence[UnitGroup],
) -> None:
    """Check a method, its targets and the layout of the bundle.

    Args:
        spec: What is asked for.
        config: The checkpoint's.
        shapes: Of its tensors.
        structure: Its blocks.
        groups: Its units.

    Raises:
        UnsupportedArchitecture: The layout, or the training, is none for models built like this one.
        TargetUnreachable: The target is below what any mask can reach, or a pattern is larger than a matrix.
    """
    method = spec.method
    if isinstance(method, AdmmPattern | BlockLasso):
        matrices = tuple(
            MatrixShape(f"{matrix.path} of layer {layer}", matrix.outputs, matrix.inputs)
            for layer, matrix in matrices_of(structure)
        )
        if isinstance(method, AdmmPattern):
            check_coverage(method.pattern, matrices, sparsities_of(spec.all_targets))
        else:
            check_blocks(matrices, method)
    else:
        parameters = sum(math.prod(shape) for shape in shapes.values())
        for target in spec.all_targets:
            if isinstance(target, SparsityTarget | KeepTarget):  # a latency is known only once it is measured
                _check_reachable(target, groups, parameters, spec.calibration.max_length)
    if spec.artifacts.layout == "stock":
        check_alike(Build.of_files(config, shapes, structure, groups), cuts=not isinstance(method, AdmmPattern | BlockLasso))


def sparsities_of(targets: Sequence[Target]) -> list[float]:
    """List the sparsities asked for of all prunable weights."""
    return [target.sparsity for target in targets if isinstance(target, SparsityTarget)]


def _check_reachable(target: SparsityTarget | KeepTarget, groups: Sequence[UnitGroup], parameters: int, longest: int) -> None:
    """Refuse a target that is out of reach at every mean length.

    The task's mean length is not known yet. Heads get dearer with length, so a target that is out of reach at both ends is
    out of reach at every length between them.
    """
    try:
        budget_for(target, groups, total_params=parameters, length=longest)
    except TargetUnreachable:
        budget_for(target, groups, total_params=parameters, length=1)
