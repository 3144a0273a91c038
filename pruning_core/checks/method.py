"""Whether method, layout and formats can work on a model, as far as its configuration and shapes tell. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pruning_core.arch.alike import Build, check_alike
from pruning_core.arch.structure import CheckpointStructure, matrices_of
from pruning_core.arch.units import UnitGroup
from pruning_core.budgets import RULES, budget_for
from pruning_core.errors import TargetUnreachable, UnsupportedArchitecture
from pruning_core.spec.grammar import MatrixShape
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import Target, sparsities_of
from pruning_core.spec.tasks import KINDS


def check_request(spec: PruneSpec) -> None:
    """Check what a task and a method, or a task and a format, make of each other, whatever the model.

    Raises:
        DatasetInvalid: Labels are needed, and the task has none that make a loss.
        UnsupportedArchitecture: There is no graph of such models.
    """
    kind = KINDS[spec.task.type]
    spec.method.check_task(spec.task.type)
    if not kind.one_graph and "onnx" in spec.artifacts.formats:
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
    matrices = tuple(
        MatrixShape(f"{matrix.path} of layer {layer}", matrix.outputs, matrix.inputs)
        for layer, matrix in matrices_of(structure)
    )
    method.check_matrices(matrices, sparsities_of(spec.all_targets))
    if method.removes_units:
        parameters = sum(math.prod(shape) for shape in shapes.values())
        for target in spec.all_targets:
            if RULES[target.metric].price is not None:  # a latency is known only once it is measured
                _check_reachable(target, groups, parameters, spec.calibration.max_length)
    if spec.artifacts.layout == "stock":
        check_alike(Build.of_files(config, shapes, structure, groups), cuts=method.removes_units)


def _check_reachable(target: Target, groups: Sequence[UnitGroup], parameters: int, longest: int) -> None:
    """Refuse a target that is out of reach at every mean length.

    The task's mean length is not known yet. Heads get dearer with length, so a target that is out of reach at both ends is
    out of reach at every length between them.
    """
    try:
        budget_for(target, groups, total_params=parameters, length=longest)
    except TargetUnreachable:
        budget_for(target, groups, total_params=parameters, length=1)
