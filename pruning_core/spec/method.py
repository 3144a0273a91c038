"""The methods that a spec can name, and their options. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

from pydantic import BeforeValidator, Field

from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.methods.baselines.options import Magnitude, Random
from pruning_core.methods.block_lasso.options import BlockLasso
from pruning_core.methods.fisher_cg.options import FisherCG
from pruning_core.spec.nearest import did_you_mean
from pruning_core.spec.options import MethodOptions
from pruning_core.spec.presets import expanded

# The registry: a method is a folder of `pruning_core.methods`, and its options are a member of this union.
AnyOptions = FisherCG | AdmmPattern | BlockLasso | Magnitude | Random

METHODS: dict[str, type[MethodOptions]] = {kind.model_fields["name"].default: kind for kind in get_args(AnyOptions)}

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]


def _expand_method(value: object) -> object:
    """Turn ``"fisher-cg"`` into ``{"name": "fisher-cg"}``; the error for an unknown method lists the known ones."""
    given = {"name": value} if isinstance(value, str) else value
    if isinstance(given, Mapping):
        name = cast("Mapping[str, Any]", given).get("name")
        if not isinstance(name, str) or name not in METHODS:
            raise ValueError(f"unknown method; known methods are {', '.join(METHODS)}{did_you_mean(name, METHODS)}")
    return cast("object", given)


Method = Annotated[
    Annotated[AnyOptions, Field(discriminator="name")],
    BeforeValidator(_expand_method, json_schema_input_type=MethodName | AnyOptions),
]


def complete_by_method(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec, completed with what follows from its method, its preset first."""
    method = given.get("method")
    fields = {"name": method} if isinstance(method, str) else method
    name = cast("Mapping[str, Any]", fields).get("name") if isinstance(fields, Mapping) else None
    if not isinstance(name, str) or name not in METHODS:
        return given
    whole = expanded(given, METHODS[name].presets)
    return METHODS[name].complete(whole, fields if whole is given else whole["method"])
