"""The stock layout: what was removed is said in the config's own words, so that nothing of ours is needed to load it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pruning_core.cost import UnitGroup
from pruning_core.errors import UnsupportedArchitecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from pruning_core.arch.encoder import EncoderAdapter

# A config keeps any other name that it is given, without a meaning: a family's own word goes first.
_FFN_WIDTHS = ("n_inner", "ffn_dim", "hidden_dim", "intermediate_size")


def check_stock(adapter: EncoderAdapter, *, cuts: bool) -> None:
    """See that the dense model is built as its config says, layer for layer, and alike in every layer.

    Args:
        adapter: The dense model.
        cuts: Whether units are to go; a method that changes no shape needs no words for it.

    Raises:
        UnsupportedArchitecture: It is not, or its config says it in words that are not known here.
    """
    config, groups = adapter.model.config, adapter.groups
    if getattr(config, "quantization_config", None) is not None:
        raise _refused("this one has widths of its own")
    if not cuts:
        return
    if adapter.crossing is not None:
        raise _refused("this one has an encoder and a decoder")
    queries = getattr(config, "num_attention_heads", None)
    heads = {getattr(config, "num_key_value_heads", None) or queries}
    said = {group.size for group in groups[::2]} == heads and {group.size for group in groups[1::2]} == {_width(config)}
    if not said or 2 * config.num_hidden_layers != len(groups):
        raise _refused("this one has widths of its own")
    if len({tuple(type(module) for module in block.modules()) for block in adapter.blocks}) > 1:
        raise _refused("the first layer of this one differs from the others")
    if len(set(getattr(config, "layer_types", None) or ())) > 1:
        raise _refused("layers of this one attend in different ways")
    if not adapter.reads_sums:
        raise _refused("this one has norms that no other layer can stand in for")


def describe_(config: PreTrainedConfig, groups: Sequence[UnitGroup]) -> None:
    """Write the FFN width and the number of layers of a sliced model into its config, in place."""
    setattr(config, _width_name(config), groups[1].size)
    config.num_hidden_layers = len(groups) // 2
    kinds = getattr(config, "layer_types", None)
    if kinds:
        config.layer_types = kinds[: config.num_hidden_layers]


def _refused(why: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"the stock layout needs a model whose layers are all alike and as wide as its config says; {why}, "
        "use artifacts.layout per_layer",
        param="artifacts.layout",
    )


def _width(config: PreTrainedConfig) -> int | None:
    width = getattr(config, _width_name(config), None)
    return 4 * config.hidden_size if width is None and _width_name(config) == "n_inner" else width


def _width_name(config: PreTrainedConfig) -> str:
    return next((name for name in _FFN_WIDTHS if hasattr(config, name)), _FFN_WIDTHS[-1])
