"""What the head of a GGUF file says of a model's shapes, positions and pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from gguf import Keys, PoolingType

from pruning_core.artifacts.exports.gguf.base import NotHeld, Value
from pruning_core.artifacts.exports.gguf.rotary import Rotary
from pruning_core.artifacts.exports.gguf.tensors import Laid
from pruning_core.checks.recipe import DenseStep, NormStep, PoolingStep, Recipe, UnitStep
from pruning_core.engines.llama_cpp import family_name

_POOLINGS = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "lasttoken": PoolingType.LAST}


def decoder_parameters(config: Mapping[str, Any], laid: Laid, rotary: Rotary) -> dict[str, Value]:
    """Describe a decoder."""
    arch, alike = laid.arch, laid.alike
    heads, groups, widths = ([getattr(layer, name) for layer in laid.layers] for name in ("heads", "groups", "ffn"))
    attention, rope = Keys.Attention, Keys.Rope
    values: dict[str, Value] = {
        Keys.LLM.CONTEXT_LENGTH: context_length(config),
        Keys.LLM.EMBEDDING_LENGTH: int(config["hidden_size"]),
        Keys.LLM.BLOCK_COUNT: len(laid.layers),
        Keys.LLM.VOCAB_SIZE: next(own.shape[0] for own in laid.placed if own.name == "token_embd.weight"),
        Keys.LLM.FEED_FORWARD_LENGTH: widths[0] if alike else widths,
        attention.HEAD_COUNT: heads[0] if alike else heads,
        attention.HEAD_COUNT_KV: groups[0] if alike else groups,
        attention.KEY_LENGTH: laid.head_size,
        attention.VALUE_LENGTH: laid.head_size,
        attention.LAYERNORM_RMS_EPS: float(config["rms_norm_eps"]),
        rope.DIMENSION_COUNT: laid.head_size,
        rope.FREQ_BASE: rotary.base,
    }
    if not rotary.plain:
        values |= {rope.SCALING_TYPE: "none", rope.SCALING_ATTN_FACTOR: rotary.scale}
    if arch in ("gemma2", "gemma3"):
        values |= _of_gemma(config, len(laid.layers))
    return {name.format(arch=arch): value for name, value in values.items()}


def _of_gemma(config: Mapping[str, Any], layers: int) -> dict[str, Value]:
    attention, rope = Keys.Attention, Keys.Rope
    kinds = cast("list[str]", config.get("layer_types") or [])
    values: dict[str, Value] = {}
    if len(kinds) != layers:
        raise NotHeld(f"the model has {layers} layers, and its config says of {len(kinds)} whether they attend to a window")
    if config.get("sliding_window") and "sliding_attention" in kinds:
        values[attention.SLIDING_WINDOW] = int(config["sliding_window"])
        values[attention.SLIDING_WINDOW_PATTERN] = [kind == "sliding_attention" for kind in kinds]
    for name, key in (
        ("attn_logit_softcapping", Keys.LLM.ATTN_LOGIT_SOFTCAPPING),
        ("final_logit_softcapping", Keys.LLM.FINAL_LOGIT_SOFTCAPPING),
    ):
        if config.get(name):
            values[key] = float(config[name])
    by_kind = cast("Mapping[str, Mapping[str, Any]]", config.get("rope_parameters") or {})
    full, near = by_kind.get("full_attention"), by_kind.get("sliding_attention")
    if full is not None:
        values[rope.FREQ_BASE] = float(full["rope_theta"])
        if full.get("rope_type") == "linear":
            values |= {rope.SCALING_TYPE: "linear", rope.SCALING_FACTOR: float(full["factor"])}
    if near is not None:
        values[rope.FREQ_BASE_SWA] = float(near["rope_theta"])
    return values


def window(config: Mapping[str, Any]) -> int | None:
    """Return the window of a decoder whose architecture in llama.cpp has none; None where it attends to all tokens."""
    if family_name(config).startswith("gemma") or not config.get("sliding_window"):
        return None
    kinds = config.get("layer_types")
    return int(config["sliding_window"]) if kinds is None or "sliding_attention" in kinds else None


def context_length(config: Mapping[str, Any]) -> int:
    """Return the length up to which llama.cpp computes the same; beyond a window, the model would not see all tokens."""
    most, near = int(config["max_position_embeddings"]), window(config)
    return most if near is None else min(most, near)


def encoder_parameters(config: Mapping[str, Any], laid: Laid, recipe: Recipe | None) -> dict[str, Value]:
    """Describe an encoder, with its pooling if it makes embeddings, else with its classes.

    Raises:
        NotHeld: llama.cpp has no such pooling.
    """
    layer, attention = laid.layers[0], Keys.Attention
    names = {own.name: own.shape for own in laid.placed}
    values: dict[str, Value] = {
        Keys.LLM.CONTEXT_LENGTH: names["position_embd.weight"][0],
        Keys.LLM.EMBEDDING_LENGTH: int(config["hidden_size"]),
        Keys.LLM.BLOCK_COUNT: len(laid.layers),
        Keys.LLM.VOCAB_SIZE: names["token_embd.weight"][0],
        Keys.LLM.FEED_FORWARD_LENGTH: layer.ffn,
        attention.HEAD_COUNT: layer.heads,
        attention.LAYERNORM_EPS: float(config["layer_norm_eps"]),
        attention.CAUSAL: False,
        Keys.LLM.POOLING_TYPE: int(PoolingType.RANK if recipe is None else pooling_of(recipe)),
    }
    found = {name.format(arch=laid.arch): value for name, value in values.items()}
    if recipe is None:
        labels = cast("Mapping[Any, str]", config.get("id2label") or {})
        by_index = sorted((int(index), label) for index, label in labels.items())
        found[Keys.Classifier.OUTPUT_LABELS.format(arch=laid.arch)] = [label for _, label in by_index]
    return found | {Keys.Tokenizer.TOKEN_TYPE_COUNT: names["token_types.weight"][0]}


def pooling_of(recipe: Recipe) -> PoolingType:
    """Return llama.cpp's pooling for what `encode` does.

    Raises:
        NotHeld: There is none.
    """
    pooling = None
    for step in recipe.steps:
        match step:
            case PoolingStep(modes=(mode,), include_prompt=True) if mode in _POOLINGS and pooling is None:
                pooling = _POOLINGS[mode]
            case PoolingStep():
                raise NotHeld(f"llama.cpp pools by one of {', '.join(_POOLINGS)}, and the model by {', '.join(step.modes)}")
            case UnitStep():
                continue  # llama.cpp's programs give unit length unless they are told otherwise
            case DenseStep() | NormStep():
                raise NotHeld("llama.cpp has no layers behind the pooling, and the model has one")
    if pooling is None or recipe.first_values is not None or recipe.lower_case:
        raise NotHeld("llama.cpp cuts no embeddings and changes no texts, and the model's files ask for it")
    return pooling
