"""Names of classes, as the Hub's libraries write them beside the data. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

_LARGEST_BYTES = 2**24
_DEEPEST = 16


def classes_in(document: bytes) -> Mapping[str, tuple[str, ...]]:
    """Read the names of classes by column out of a description of features; empty where it says none, or is none.

    Args:
        document: JSON, as in a schema's metadata (``{"info": {"features": ...}}``) or in dataset_info.json.
    """
    if not document or len(document) > _LARGEST_BYTES:
        return {}
    try:
        found: object = json.loads(document)
    except (ValueError, RecursionError):  # not a description of the data, so not of its classes
        return {}
    info = _field(found, "info")
    features = _field(found if info is None else info, "features")
    if not isinstance(features, Mapping):
        return {}
    named = {name: _names(feature) for name, feature in cast("Mapping[str, object]", features).items()}
    return {name: names for name, names in named.items() if names}


def _names(feature: object) -> tuple[str, ...]:
    """Return the names of a ClassLabel, of one in a list too; empty for any other feature."""
    for _ in range(_DEEPEST):
        if isinstance(feature, list) and len(cast("list[object]", feature)) == 1:
            (feature,) = cast("list[object]", feature)
        elif (inner := _field(feature, "feature")) is not None:
            feature = inner
        else:
            break
    names = _field(feature, "names")
    if _field(feature, "_type") != "ClassLabel" or not isinstance(names, list):
        return ()
    given = cast("list[object]", names)
    return tuple(cast("list[str]", given)) if all(isinstance(name, str) for name in given) else ()


def _field(value: object, name: str) -> Any:
    return cast("Mapping[str, Any]", value).get(name) if isinstance(value, Mapping) else None
