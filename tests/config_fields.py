"""What transformers declares of the configurations that submit knows: a file of `pruning_core.checks`, and a test of it.

Run as a module to write the file anew: ``python -m tests.config_fields``.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path

PLACE = Path(__file__).parents[1] / "pruning_core" / "checks" / "config_fields.json"


def declared() -> dict:
    """Return the types and the default of each field, by model type, and the names of activations and rotary types."""
    from transformers.activations import ACT2FN
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from pruning_core.checks.heads import LOADED_BY

    return {
        "activations": sorted(ACT2FN),
        "dtypes": _dtypes(),
        "rope_types": _rope_types(),
        "models": {name: _fields(CONFIG_MAPPING[name]) for name in sorted(LOADED_BY)},
    }


def text() -> str:
    found = declared()
    models = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(fields, sort_keys=True)}" for name, fields in found["models"].items()
    )
    head = ",\n".join(f"{json.dumps(name)}: {json.dumps(found[name])}" for name in ("activations", "dtypes", "rope_types"))
    return f'{{{head},\n"models": {{\n{models}\n}}}}\n'


def _dtypes() -> list[str]:
    """List torch's names of types of numbers, by which a configuration may name one."""
    import torch

    return sorted(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))


def _rope_types() -> dict[str, list[str]]:
    """List the kinds of rotary positions, with the entries that transformers insists on."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RotaryEmbeddingConfigMixin

    class Asked(RotaryEmbeddingConfigMixin):
        def _check_received_keys(self, _kind, _received, required_keys, *_others, **_more):
            raise KeyError(*required_keys)

    found = {}
    for kind in sorted({"default", *ROPE_INIT_FUNCTIONS}):
        try:
            getattr(Asked(), f"_validate_{kind}_rope_parameters")({"rope_type": kind})
        except KeyError as error:
            found[kind] = sorted(error.args)
    return found


def _fields(config: type) -> dict:
    found = {}
    for field in dataclasses.fields(config):
        if field.name.startswith("_"):
            continue
        kinds = sorted(_kinds(field.type))
        if "any" in kinds:
            continue
        found[field.name] = [kinds, field.default] if _is_size(field.name, field.default) else [kinds]
    return found


def _is_size(name: str, default: object) -> bool:
    return type(default) is int and not name.endswith("_id") and not name.endswith("labels")


def _kinds(kind: object) -> set[str]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(_kinds, inner))
    if origin is typing.Literal:
        return {f"={value}" for value in inner}
    if origin is list:
        return {f"list[{'|'.join(sorted(_kinds(inner[0])))}]"}
    if origin is tuple:
        return set()  # no JSON is one
    if origin is dict or (isinstance(kind, type) and issubclass(kind, dict)):
        return {"dict"}
    if kind is type(None):
        return {"null"}
    return (
        {kind.__name__}
        if kind in (int, float, bool, str)
        else {"torch"}
        if getattr(kind, "__name__", "") == "dtype"
        else {"any"}
    )


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
