"""Checks of what is asked of a mixture of experts, and the layout that its bundle has. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import RULES, budget_for, check_steps_of_experts, refuse_for_experts
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import Target, any_rounds


def laid_out(spec: PruneSpec, groups: Sequence[UnitGroup], config: Mapping[str, Any]) -> PruneSpec:
    """Return the request with the layout that its bundle will have; the same where the model itself needs our loader.

    Nothing else than experts is removed of a mixture. Where all layers keep the same number of them, the model's own config can
    say it, so that layout per_layer is layout stock. A target in bytes chooses types, too, which only our loader reads.
    """
    mixture = any(group.kind == "expert" for group in groups) and config.get("quantization_config") is None
    own = spec.artifacts.layout != "per_layer" or spec.artifacts.experts == "own" or any_rounds(spec.all_targets)
    if not mixture or own or not spec.method.removes_units:
        return spec
    return spec.but(artifacts=spec.artifacts.but(layout="stock"))


def check_experts(spec: PruneSpec, groups: Sequence[UnitGroup]) -> None:
    """Refuse what there is not for mixtures of experts: zeros in their matrices, quantised forms, and targets that say nothing.

    Raises:
        UnsupportedArchitecture: The method or a format cannot be had.
        TargetUnreachable: A target is in a metric that experts do not change.
    """
    if all(group.kind != "expert" for group in groups):
        return
    if not spec.method.cuts_experts:
        raise UnsupportedArchitecture(
            f"method {spec.method.name} sets weights to zero, which is not done in mixtures of experts yet; fisher-cg, "
            "magnitude and random remove whole experts",
            param="method.name",
        )
    for name in ("compressed-tensors", "gguf"):
        if name in spec.artifacts.formats:
            raise UnsupportedArchitecture(
                f"format {name} is not written of mixtures of experts yet; leave it out", param="artifacts.formats"
            )
    if spec.artifacts.layout == "serve":
        raise UnsupportedArchitecture(
            "no engine takes mixtures with a number of experts of its own in each layer; layout stock keeps the same number in "
            "each, which engines load like any checkpoint of the model type",
            param="artifacts.layout",
        )
    for target in spec.all_targets:
        refuse_for_experts(target, groups)


def check_experts_fit(target: Target, groups: Sequence[UnitGroup], parameters: int, *, alike: bool) -> None:
    """Refuse a target that no number of experts meets within its tolerance."""
    budget = budget_for(target, groups, total_params=parameters, length=1)
    units = budget.spent([group.size for group in groups])
    whole = parameters if RULES[target.metric].whole_model else units
    check_steps_of_experts(target, groups, budget, whole, alike=alike)
