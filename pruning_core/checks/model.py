"""Checks of a checkpoint's weights: their sizes against its configuration, and their types. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruning_core.arch.alike import FFN_WIDTHS, ffn_width
from pruning_core.arch.structure import (
    DECODER_HEADS,
    EXPERTS,
    HEADS,
    LAYERS,
    CheckpointStructure,
    absent_attentions,
    key_heads,
    number,
)
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.errors import ModelUnreadable

_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float32"}


def check_weights(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    structure: CheckpointStructure,
    groups: Sequence[UnitGroup],
) -> None:
    """Compare the sizes that a configuration states with the tensors beside it. Sizes that it does not state are not checked.

    Where a configuration states too few layers, transformers would drop the others silently.

    Args:
        config: Configuration of the checkpoint.
        shapes: Shape of each tensor, by stored name.
        structure: The blocks found among the tensors.
        groups: Unit group of every sublayer.

    Raises:
        ModelUnreadable: They differ.
    """
    attended = {group.layer for group in groups if group.kind == "head"}
    for layer in sorted(absent_attentions(config)):
        if layer in attended or layer not in {group.layer for group in groups}:
            has = "have one" if layer in attended else "have no such layer"
            raise _other(f"that layer {layer + 1} has no attention", f"the weights {has}")
    decoder = structure.signature.decoder
    for name, family in (("encoder", structure.signature), ("decoder", decoder)):
        own = [group for sublayer, group in zip(structure.sublayers, groups, strict=True) if sublayer.family is family]
        if own:
            stack = name if config.get("is_encoder_decoder") else "model"
            _compare_layers(config, stack, own)
    for name, shape in shapes.items():
        for ends, key, what in _TABLES:
            keys = (
                (f"decoder_{key}", key) if ".decoder." in name else (key,)
            )  # Marian's two languages may have two vocabularies
            if name.endswith(ends) and (said := _stated(config, keys)) not in (None, shape[0]):
                raise _other(f"{what} {said}", f"{name} has {shape[0]} rows")
    directed = structure.signature.causal or decoder is not None
    _compare_parts(config, shapes, gated=structure.signature.family.endswith("-gated"), directed=directed)


def _stated(config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    """Return the first whole number that a configuration states under one of the names, 0 and less included."""
    return next((config[key] for key in keys if type(config.get(key)) is int), None)


def _compare_parts(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, gated: bool, directed: bool) -> None:
    """Compare the parts that a configuration turns on and off with those that are there: transformers would leave them out."""
    own = {"bias": ("self_attention.query_key_value.bias",)} if config.get("model_type") == "falcon" else {}
    for key, ends in (_BIASES | own).items():
        said, there = config.get(key), any(name.endswith(ends) for name in shapes)
        if isinstance(said, bool) and said != there:
            raise _other(f"{key} {str(said).lower()}", f"the weights have {'such' if there else 'no such'} biases")
    if config.get("is_decoder") and not directed:
        raise ModelUnreadable(
            "config.json says is_decoder true, by which each token of this model would see those before it alone, and no task "
            "here reads it so; set it to false if it was trained to see them all",
            param="model",
        )
    said = config.get("is_gated_act")
    if said is not None and config.get("model_type") in ("t5", "mt5") and (not isinstance(said, bool) or said != gated):
        raise _other("another is_gated_act", f"the weights have {'a' if gated else 'no'} gate in each FFN")


def _compare_layers(config: Mapping[str, Any], stack: str, groups: Sequence[UnitGroup]) -> None:
    names = _NAMES[stack]
    layers = len({group.layer for group in groups}) * groups[0].times
    said = number(config, names.layers)
    if said not in (None, layers):
        of = "" if stack == "model" else f" of its {stack}"
        raise _other(f"{said} layers{of}", f"the weights have {layers}")
    if config.get("quantization_config") is not None:  # the widths are stated there
        return
    heads = key_heads(config) or number(config, names.heads)
    neurons = ffn_width(config, groups[0].hidden, names.neurons)
    hidden = number(config, _HIDDEN)
    sizes = {
        "head": (heads, "heads (keys and values)"),
        "neuron": (neurons, "neurons in each FFN"),
        "expert": (number(config, EXPERTS), "experts in each layer"),
    }
    wide = number(config, _WIDTHS_OF_EXPERTS)
    for group in groups:
        units, what = sizes[group.kind]
        if hidden not in (None, group.hidden):
            raise _other(f"a hidden size of {hidden}", f"the weights of layer {group.layer + 1} have {group.hidden}")
        if units not in (None, group.size):
            raise _other(f"{units} {what}", f"the weights of layer {group.layer + 1} have {group.size}")
        if group.kind == "expert" and wide not in (None, group.unit_width, group.unit_width - 1):  # a bias counts as one
            raise _other(f"{wide} neurons in each expert", f"those of layer {group.layer + 1} have {group.unit_width}")


def _other(said: str, found: str) -> ModelUnreadable:
    return ModelUnreadable(f"config.json says {said}, and {found}; the two belong to different models", param="model")


@dataclass(frozen=True, slots=True)
class _Names:
    """Names under which configurations state the sizes of a stack of blocks."""

    layers: tuple[str, ...]
    heads: tuple[str, ...]
    neurons: tuple[str, ...]


_NAMES = {
    "model": _Names(LAYERS, HEADS, FFN_WIDTHS),
    "encoder": _Names(("encoder_layers", "num_layers"), HEADS, ("encoder_ffn_dim", "d_ff")),
    "decoder": _Names(("decoder_layers", "num_decoder_layers", "num_layers"), DECODER_HEADS, ("decoder_ffn_dim", "d_ff")),
}
_WIDTHS_OF_EXPERTS = ("moe_intermediate_size", "intermediate_size")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
# Biases that a configuration turns on, by the ends of their names.
_BIASES = {
    "attention_bias": ("self_attn.q_proj.bias", "attn.Wqkv.bias", "attention.query_key_value.bias"),
    "mlp_bias": ("mlp.up_proj.bias", "mlp.Wi.bias"),
    "use_qkv_bias": ("self_attn.q_proj.bias",),
}
# Embedding tables whose number of rows a configuration states. OPT's and BART's tables of positions, which have two more rows,
# have other names.
_TABLES = (
    (("word_embeddings.weight", "embed_tokens.weight", "wte.weight", "tok_embeddings.weight"), "vocab_size", "a vocabulary of"),
    ((".position_embeddings.weight",), "max_position_embeddings", "a number of positions of"),
    (("wpe.weight",), "n_positions", "a number of positions of"),
    ((".token_type_embeddings.weight",), "type_vocab_size", "a number of types of tokens of"),
    (("relative_attention_bias.weight",), "relative_attention_num_buckets", "a number of distances of"),
    (("lm_head.weight", "shared.weight"), "vocab_size", "a vocabulary of"),
)


def stored_type(values: Mapping[str, int]) -> str:
    """Return the type of a checkpoint's weights: the type of most values, or float32 where float16 and bfloat16 are mixed.

    Neither of these two can hold the values of the other: float16 lacks the range, bfloat16 the digits.
    """
    found = {kind: count for kind, count in values.items() if kind in _FLOATS}
    if not found or {"F16", "BF16"} <= found.keys():
        return "float32"
    return _FLOATS[max(found, key=lambda kind: found[kind])]


def mixture(values: Mapping[str, int]) -> str | None:
    """Return a sentence that says which types a checkpoint mixes, or None where it has one type."""
    found = sorted({_FLOATS[kind] for kind in values if kind in _FLOATS})
    if len(found) < 2:
        return None
    kinds = " and ".join(found)
    return f"the base model's weights mix {kinds}; with artifacts.dtype auto all are written in {stored_type(values)}"
