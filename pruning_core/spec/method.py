"""How a model is pruned: the methods of a spec and their options. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BeforeValidator, Field

from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.methods.baselines.options import Magnitude, Random
from pruning_core.methods.block_lasso.options import BlockLasso
from pruning_core.methods.fisher_cg.options import FisherCG

UnitMethod = FisherCG | Magnitude | Random
# Those that keep shapes and set weights to zero.
ZeroMethod = AdmmPattern | BlockLasso
MethodName = Literal["fisher-cg", "admm-pattern", "block-lasso", "magnitude", "random"]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)


def _expand_method(value: object) -> object:
    """Turn ``"fisher-cg"`` into ``{"name": "fisher-cg"}``; name the known methods when it is not one."""
    given = {"name": value} if isinstance(value, str) else value
    if isinstance(given, Mapping):
        name = cast("Mapping[str, Any]", given).get("name")
        if name not in METHOD_NAMES:
            raise ValueError(f"unknown method; known methods are {', '.join(METHOD_NAMES)}")
    return cast("object", given)


Method = Annotated[
    Annotated[FisherCG | AdmmPattern | BlockLasso | Magnitude | Random, Field(discriminator="name")],
    BeforeValidator(
        _expand_method, json_schema_input_type=MethodName | FisherCG | AdmmPattern | BlockLasso | Magnitude | Random
    ),
]
