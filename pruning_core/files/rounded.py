"""Matrices that a checkpoint of ours stores as integers: the shapes that they stand for. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pruning_core.errors import ModelUnreadable

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
        if found[weight][:1] != (outputs,) or len(found[weight]) != 2 or found[weight][1] > inputs:  # noqa: PLR2004
            raise ModelUnreadable(f"the integers of {path[:128]} are of another shape than config.json says", param="model")
        found[weight] = (inputs, outputs) if form.get("transposed") else (outputs, inputs)
        del found[scales]
    return found


def _is_shape(value: object) -> bool:
    sizes = cast("list[object]", value) if isinstance(value, list) else []
    return len(sizes) == 2 and all(isinstance(own, int) and not isinstance(own, bool) and own > 0 for own in sizes)  # noqa: PLR2004
