"""Checks of what a configuration says of rotary positions, by what transformers needs of each kind. Torch-free.

transformers reads these entries in every configuration that has them, also of models without such positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pruning_core.checks.declared import declared

ROTARY = ("rope_parameters", "rope_scaling")
_LISTS = ("short_factor", "long_factor")
# Taken from the configuration's own entries where they are not stated, by model types that declare such positions.
_FILLED_IN = frozenset({"original_max_position_embeddings", "rope_theta"})
_ABOVE_ZERO = ("rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
_NUMBERS = (*_ABOVE_ZERO, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "partial_rotary_factor")


def odd_rotary(config: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield the entries that are of no use, with what may stand there."""
    for name in ROTARY:
        value = config.get(name)
        if isinstance(value, dict):
            for must in _odd_parts(cast("dict[str, object]", value), config):
                yield name, value, must
        elif value is not None:
            yield name, value, "an object or null"
    if config.get("rope_theta") is not None and not _is_above_zero(config["rope_theta"]):
        yield "rope_theta", config["rope_theta"], "a number above 0"


def _odd_parts(fields: Mapping[str, object], config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an object must be: the entries of all layers, or those of each kind of layer."""
    for own in [own for key, own in fields.items() if key.endswith("_attention")] or [fields]:
        yield from _odd_entries(cast("dict[str, object]", own) if isinstance(own, dict) else {}, config)


def _odd_entries(entries: Mapping[str, object], config: Mapping[str, Any]) -> Iterator[str]:
    kinds: Mapping[str, list[str]] = declared("config_fields")["rope_types"]
    kind = entries.get("rope_type", entries.get("type", "default"))
    if not isinstance(kind, str) or kind not in kinds:
        yield f"an object with a rope_type of {', '.join(kinds)}"
        return
    own = declared("config_fields")["models"].get(str(config.get("model_type")), {})
    needed = set(kinds[kind]) - {"rope_type"} - (_FILLED_IN if "rope_parameters" in own else frozenset())
    lacking = sorted(name for name in needed if entries.get(name) is None)
    if lacking and entries:
        yield f"an object with {' and '.join(lacking)}, for a rope_type of {kind}"
    stated = {name: value for name, value in entries.items() if value is not None}
    if not all(_is_number(value) for name, value in stated.items() if name in _NUMBERS):
        yield f"an object whose {', '.join(name for name in _NUMBERS if name in stated)} are numbers from 0"
    if not all(_is_above_zero(value) for name, value in stated.items() if name in _ABOVE_ZERO):
        yield f"an object whose {' and '.join(name for name in _ABOVE_ZERO if name in stated)} are numbers above 0"
    if not all(_are_numbers(value) for name, value in stated.items() if name in _LISTS):
        yield f"an object whose {' and '.join(_LISTS)} are lists of numbers"


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and cast("float", value) >= 0  # NaN is not


def _is_above_zero(value: object) -> bool:
    return type(value) in (int, float) and cast("float", value) > 0


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_above_zero, cast("list[object]", value)))
