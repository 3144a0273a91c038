"""The stock layout: what was removed is said in the config's own words, so that nothing of ours is needed to load it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pruning_core.cost import UnitGroup
from pruning_core.errors import UnsupportedArchitecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_FFN_WIDTHS = ("intermediate_size", "hidden_dim")


def check_stock(config: PreTrainedConfig, groups: Sequence[UnitGroup]) -> None:
    """See that the dense model is built as its config says, layer for layer.

    Raises:
        UnsupportedArchitecture: It is not, or its config says it in words that are not known here.
    """
    heads, widths = {group.size for group in groups[::2]}, {group.size for group in groups[1::2]}
    said = heads == {config.num_attention_heads} and widths == {getattr(config, _width_name(config), None)}
    if not said or 2 * config.num_hidden_layers != len(groups):
        raise UnsupportedArchitecture(
            "the stock layout needs a model whose layers are all as wide as its config says; this one has widths of its own, "
            "use artifacts.layout per_layer",
            param="artifacts.layout",
        )


def describe_(config: PreTrainedConfig, groups: Sequence[UnitGroup]) -> None:
    """Write the FFN width and the number of layers of a sliced model into its config, in place."""
    setattr(config, _width_name(config), groups[1].size)
    config.num_hidden_layers = len(groups) // 2


def _width_name(config: PreTrainedConfig) -> str:
    return next((name for name in _FFN_WIDTHS if hasattr(config, name)), _FFN_WIDTHS[0])
