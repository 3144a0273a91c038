"""The stock layout: the config's own fields describe the pruned shapes, so loading needs no code of Coppice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pruning_core.arch.alike import FFN_WIDTHS, Build, check_alike
from pruning_core.arch.structure import EXPERTS
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.plugin.words import plain_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from pruning_core.arch.adapter import ModelAdapter


def check_stock(adapter: ModelAdapter, *, cuts: bool) -> None:
    """Check that the dense model is built as its config says, including the defaults that the config's file leaves out.

    Args:
        adapter: The dense model.
        cuts: Whether units will be removed.

    Raises:
        UnsupportedArchitecture: The model is built otherwise.
    """
    parts = [frozenset(f"{path} {type(module).__name__}" for path, module in block.named_modules()) for block in adapter.blocks]
    check_alike(Build(plain_config(adapter.model.config.to_dict()), adapter.family, adapter.groups, parts), cuts=cuts)


def experts_said(config: PreTrainedConfig) -> int | None:
    """Return the number of experts that a config states for all layers; None where it states none."""
    return next((getattr(config, name) for name in EXPERTS if hasattr(config, name)), None)


def describe_(config: PreTrainedConfig, groups: Sequence[UnitGroup]) -> None:
    """Set the FFN width, or the number of experts, and the number of layers of a sliced model in its config, in place."""
    if groups[1].kind == "expert":
        for name in EXPERTS:
            if hasattr(config, name):
                setattr(config, name, groups[1].size)
        return
    setattr(config, next((name for name in FFN_WIDTHS if hasattr(config, name)), FFN_WIDTHS[-1]), groups[1].size)
    config.num_hidden_layers = len(groups) // 2 * groups[0].times
    kinds = getattr(config, "layer_types", None)
    if kinds:
        config.layer_types = kinds[: config.num_hidden_layers]
