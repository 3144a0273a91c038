"""Matrices that a checkpoint of ours stores as integers: the shapes that they stand for. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pruning_core.errors import ModelUnreadable
from pruning_core.files.safetensors_header import DTYPE_BYTES, read_header
from pruning_core.report.storage import StorageReport, StorageRow
from pruning_core.spec.storage import STORAGE_TYPES, StorageName

if TYPE_CHECKING:
    from pruning_core.files.checkpoint import CheckpointFacts

# Name of the scales beside a matrix ``weight``.
SCALES = "weight_scales"


def rounded_forms(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return what a configuration says of rounded matrices, by module path; nothing for most checkpoints."""
    own: object = config.get("quantization_config")
    found: object = cast("dict[str, object]", own).get("rounded") if isinstance(own, dict) else None
    return cast("dict[str, dict[str, Any]]", found) if isinstance(found, dict) else {}


def with_rounded(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], plain: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a checkpoint's tensors with those of rounded matrices in place of their integers and scales.

    Args:
        shapes: Shape of each stored tensor, by its plain name.
        config: The configuration, as that of the base model.
        plain: Plain name of each tensor, by its name in the files.

    Raises:
        ModelUnreadable: The configuration names a matrix that is not stored like that.
    """
    found = dict(shapes)
    for path, form in rounded_forms(config).items():
        stored = str(form.get("stored", path))
        weight, scales = (plain.get(f"{stored}.{name}", "") for name in ("weight", SCALES))
        shape = form.get("shape")
        if weight not in found or scales not in found or not _is_shape(shape):
            raise ModelUnreadable(
                f"config.json says that {path[:128]} is stored in integers, and the weight files have none of it", param="model"
            )
        outputs, inputs = cast("list[int]", shape)
        if found[weight][:1] != (outputs,) or len(found[weight]) != 2 or found[weight][1] > inputs:
            raise ModelUnreadable(f"the integers of {path[:128]} are of another shape than config.json says", param="model")
        found[weight] = (inputs, outputs) if form.get("transposed") else (outputs, inputs)
        del found[scales]
    return found


def storage_of(facts: CheckpointFacts) -> StorageReport | None:
    """Count the tensors and bytes of each storage type; None where a checkpoint has no integers."""
    forms = rounded_forms(facts.config)
    if not forms:
        return None
    types: dict[str, StorageName] = {path: _type_of(form) for path, form in forms.items()}
    stored: dict[str, StorageName] = {str(form.get("stored", path)): types[path] for path, form in forms.items()}
    sums: dict[StorageName, list[int]] = {}
    for file in facts.weight_files:
        for tensor in read_header(file):
            module, _, name = tensor.name.rpartition(".")
            is_part = module in stored and name in ("weight", SCALES)
            own = sums.setdefault(stored[module] if is_part else "float", [0, 0, 0])
            if not is_part or name == "weight":
                own[0] += 1
                own[1] += math.prod(facts.shapes.get(facts.plain[tensor.name], ()))
            own[2] += tensor.values * DTYPE_BYTES[tensor.dtype]
    rows = [
        StorageRow(type=kind, matrices=sums[kind][0], weights=sums[kind][1], bytes=sums[kind][2])
        for kind in STORAGE_TYPES
        if kind in sums
    ]
    return StorageReport(rows=tuple(rows), types=types)


def _type_of(form: Mapping[str, Any]) -> StorageName:
    return next(name for name, kind in STORAGE_TYPES.items() if kind.bits == form["bits"])


def _is_shape(value: object) -> bool:
    sizes = cast("list[object]", value) if isinstance(value, list) else []
    return len(sizes) == 2 and all(isinstance(own, int) and not isinstance(own, bool) and own > 0 for own in sizes)
