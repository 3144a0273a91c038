"""Checks of method, layout and formats against a model's configuration and tensor shapes. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pruning_core.arch.alike import Build, check_alike
from pruning_core.arch.structure import CheckpointStructure, matrices_of
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import RULES, budget_for
from pruning_core.checks.engine_targets import check_engine_targets, check_engines_hold
from pruning_core.checks.experts import check_experts, check_experts_fit, laid_out
from pruning_core.engines.limits import Limits, check_limits, limits_of
from pruning_core.errors import TargetUnreachable, UnsupportedArchitecture
from pruning_core.spec.grammar import MatrixShape
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.sizes import size_text
from pruning_core.spec.storage import LEAST_WEIGHTS, STORAGE_TYPES
from pruning_core.spec.targets import TARGET_METRICS, BytesTarget, Target, sparsities_of
from pruning_core.spec.tasks import KINDS


def check_request(spec: PruneSpec) -> None:
    """Check whether the task fits the method and the formats, whatever the model.

    Raises:
        DatasetInvalid: The method needs labels, and the task has none that give a loss.
        UnsupportedArchitecture: Models of the task have no single graph, the layout has no quantised form, or an engine of a
            target does not load the bundle.
    """
    kind = KINDS[spec.task.type]
    spec.method.check_task(spec.task.type)
    for name in ("onnx", "openvino"):
        if not kind.one_graph and name in spec.artifacts.formats:
            raise UnsupportedArchitecture(
                f"{spec.task.type} needs one graph for the encoder, one for the decoder and a cache between them: no such "
                f"graphs are written; leave {name} out",
                param="artifacts.formats",
            )
    check_engine_targets(spec)
    # Libraries look for widths and for scales in one place of config.json, and in that layout it says the widths.
    if "compressed-tensors" in spec.artifacts.formats and spec.artifacts.layout == "per_layer":
        raise UnsupportedArchitecture(
            "no engine reads a quantised checkpoint of layout per_layer; take layout stock or serve, or leave "
            "compressed-tensors out",
            param="artifacts.layout",
        )


def check_method(
    spec: PruneSpec,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    structure: CheckpointStructure,
    groups: Sequence[UnitGroup],
) -> None:
    """Check the method, its targets and the layout of the bundle against a model.

    Args:
        spec: The request.
        config: Configuration of the checkpoint.
        shapes: Shape of each tensor, by stored name.
        structure: Blocks of the checkpoint.
        groups: Unit group of every sublayer.

    Raises:
        UnsupportedArchitecture: The layout or the training does not work for models built like this one.
        TargetUnreachable: The target is below what any mask can reach, or a pattern is larger than a matrix.
    """
    method = spec.method
    spec = laid_out(spec, groups, config)
    check_experts(spec, groups)
    matrices = tuple(
        MatrixShape(f"{matrix.path} of layer {layer}", matrix.outputs, matrix.inputs)
        for layer, matrix in matrices_of(structure)
    )
    method.check_matrices(matrices, sparsities_of(spec.all_targets))
    if structure.signature.float32 and spec.calibration.precision == "bfloat16":
        raise UnsupportedArchitecture(
            f"products in bfloat16 fail in the code of {config.get('model_type')} models; leave calibration.precision at auto, "
            "which takes float32 for them",
            param="calibration.precision",
        )
    limits = limits_of(spec.artifacts, config, drops_attention=method.drops_attention)
    if method.removes_units:
        floors = None if limits is None else [limits.floor(group) for group in groups]
        parameters = sum(math.prod(shape) for shape in shapes.values())
        for target in spec.all_targets:
            # How much goes with a cut vocabulary is known only once the data is read.
            cuts = spec.vocabulary is not None and RULES[target.metric].whole_model
            if isinstance(target, BytesTarget) and spec.vocabulary is None:
                _check_bytes(target, groups, shapes)
            if RULES[target.metric].price is not None and not cuts:  # a latency is known only once it is measured
                _check_reachable(target, groups, parameters, spec.calibration.max_length, floors)
                if any(group.passed for group in groups):
                    check_experts_fit(target, groups, parameters, alike=spec.artifacts.layout == "stock")
    if "compressed-tensors" in spec.artifacts.formats and structure.signature.transposed:
        raise UnsupportedArchitecture(
            f"{config.get('model_type')} stores its matrices input-major, which no engine reads quantised; leave "
            "compressed-tensors out",
            param="artifacts.formats",
        )
    if spec.artifacts.layout == "stock":
        check_alike(Build.of_files(config, shapes, structure, groups), cuts=method.removes_units)
    check_engines_hold(spec, config)
    if limits is not None:
        check_limits(limits, groups)
        if method.removes_units:
            _check_steps(spec, limits, groups)


def _check_steps(spec: PruneSpec, limits: Limits, groups: Sequence[UnitGroup]) -> None:
    """Refuse a target that the widths which engines can hold do not reach, or only in steps larger than its tolerance.

    Raises:
        TargetUnreachable: It is so.
    """
    length = spec.calibration.max_length
    for target in spec.all_targets:
        price = RULES[target.metric].price
        if price is None:
            continue
        prices = [price(group, length) for group in groups]
        whole = sum(group.size * own for group, own in zip(groups, prices, strict=True))
        least = sum(limits.counts(group)[0] * own for group, own in zip(groups, prices, strict=True)) / whole
        asked = 1 - target.requested if TARGET_METRICS[target.metric].removed else target.requested
        if RULES[target.metric].whole_model:
            continue  # its own check knows what cannot be pruned; the job tells
        if least > asked:
            raise TargetUnreachable(
                f"the widths that these engines take keep at least {least:.3f} of the model, got {asked:.3f}; "
                + (
                    "attention stays whole for them: ask for engines that take fewer heads, set method.drop_attention, or "
                    if limits.whole_attention and limits.absent_from is None
                    else ""
                )
                + "keep more",
                param="target",
            )
        step = limits.step * max(own for group, own in zip(groups, prices, strict=True) if group.kind == "neuron") / whole
        if step > target.tolerance:
            raise TargetUnreachable(
                f"FFN widths go in steps of {limits.step} for these engines, {step:.3f} of the model each, and the tolerance "
                f"is {target.tolerance:g}; raise target.tolerance to {step:.3f} or more",
                param="target.tolerance",
            )


def _check_bytes(target: BytesTarget, groups: Sequence[UnitGroup], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a number of bytes that no widths and no types go down to.

    The bound is below what the job can reach: all matrices in the smallest type, and of units no more than must stay.

    Raises:
        TargetUnreachable: It is so.
    """
    types = [STORAGE_TYPES[name] for name in target.types]

    def least_of(shape: tuple[int, ...]) -> int:
        if len(shape) != 2 or math.prod(shape) < LEAST_WEIGHTS:
            return 2 * math.prod(shape)
        return min(kind.nbytes(*shape, 2) for kind in types)

    whole = sum(map(least_of, shapes.values()))
    smallest = min(kind.nbytes(1024, 1024, 2) / 1024**2 for kind in types)
    units = sum(group.params_per_unit * (group.size - min(group.floor, group.size)) for group in groups)
    as_floats = smallest == 2 or any(group.passed for group in groups)  # experts are stored as floats
    least = math.ceil(whole - 2 * units if as_floats else whole - smallest * 1.1 * units)
    if least > target.at_most:
        raise TargetUnreachable(
            f"at least {size_text(least)} must be stored of this model with types {', '.join(target.types)}, and "
            f"{size_text(target.at_most)} may be: allow more bytes{'' if 'int4' in target.types else ', or smaller types'}",
            param="target.at_most",
        )


def _check_reachable(
    target: Target, groups: Sequence[UnitGroup], parameters: int, longest: int, floors: Sequence[int] | None
) -> None:
    """Refuse a target that is out of reach at every mean length.

    The mean length of the task's samples is not known yet. Heads cost relatively more the longer the samples are, so a target
    that is out of reach at both ends is out of reach at every length between them.
    """
    try:
        budget_for(target, groups, total_params=parameters, length=longest, floors=floors)
    except TargetUnreachable:
        budget_for(target, groups, total_params=parameters, length=1, floors=floors)
