"""A configuration in both forms: as transformers 5 writes it, and under the keys that transformers 4 and others read.

transformers 5 keeps all of rotary positions in ``rope_parameters``. What was made before it, and engines and converters that
read configurations by themselves, look for ``rope_theta`` and ``rope_scaling`` at the top, and take a theta of 10000 where they
find none: other outputs, without a word. Both forms are read by transformers 5, and say the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

# Top-level keys of the rotary positions of layers that attend to all tokens, and to a window of them.
_THETAS: Mapping[str, tuple[str, str]] = {
    "gemma3_text": ("rope_theta", "rope_local_base_freq"),
    "gemma3": ("rope_theta", "rope_local_base_freq"),
    "modernbert": ("global_rope_theta", "local_rope_theta"),
    "modernbert-decoder": ("global_rope_theta", "local_rope_theta"),
}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_BESIDE = ("rope_theta", "partial_rotary_factor")  # what the old form has at the top
_NEW = "rope_parameters"
_OLD = "rope_scaling"


def write_both_forms(path: Path, source: Path) -> None:
    """Add the old keys to a written configuration.

    Args:
        path: The written config.json.
        source: The config.json of the model that was pruned. What it says in the old form is kept as it says it.
    """
    config = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    try:
        given: object = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        given = None
    both = in_both_forms(config, cast("dict[str, Any]", given) if isinstance(given, dict) else {})
    path.write_text(json.dumps(both, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def in_both_forms(config: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the old keys beside the new ones, in the configurations of its parts too.

    Args:
        config: As transformers 5 writes it.
        source: The configuration that it was made of.
    """
    both = dict(config)
    for name, own in config.items():
        if name.endswith("_config") and isinstance(own, dict) and name != "quantization_config":
            there = source.get(name)
            inner = cast("dict[str, Any]", there) if isinstance(there, dict) else {}
            both[name] = in_both_forms(cast("dict[str, Any]", own), inner)
    if isinstance(config.get("dtype"), str):
        both["torch_dtype"] = config["dtype"]
    rope = config.get(_NEW)
    if isinstance(rope, dict):
        both |= _old_keys(cast("dict[str, Any]", rope), config, source)
    return both


def _old_keys(rope: Mapping[str, Any], config: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: part for name, part in rope.items() if isinstance(part, dict) and name.endswith("_attention")}
    if not parts:
        return _of_one(rope, config, source)
    names = _THETAS.get(str(config.get("model_type")))
    full = parts.get(_FULL)
    if names is None or full is None:
        alike = list(parts.values())
        return _of_one(alike[0], config, source) if all(part == alike[0] for part in alike) else {}
    found = _of_one(full, config, source)
    found[names[0]] = found.pop("rope_theta")
    found[names[1]] = parts.get(_SLIDING, full)["rope_theta"]
    return found


def _of_one(rope: Mapping[str, Any], config: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: rope[name] for name in _BESIDE if name in rope}
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return found | {_OLD: None}
    stated = source.get(_OLD)
    if isinstance(stated, dict) and _says(cast("dict[str, Any]", stated), rope):
        return found | {_OLD: stated}
    scaling = {name: value for name, value in rope.items() if name not in _BESIDE}
    # transformers 5 states the length that a model was trained for where its source does not, and means its positions. For
    # yarn, transformers 4 divides the positions by it, in place of the factor.
    if kind == "yarn" and scaling.get("original_max_position_embeddings") == config.get("max_position_embeddings"):
        scaling.pop("original_max_position_embeddings", None)
    return found | {_OLD: scaling}


def _says(stated: Mapping[str, Any], rope: Mapping[str, Any]) -> bool:
    """Return whether a source's old form says nothing else than the new form does."""
    if stated.get("rope_type", stated.get("type")) != rope.get("rope_type"):
        return False
    return all(rope.get(name) == value for name, value in stated.items() if name not in ("rope_type", "type"))
