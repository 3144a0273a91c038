"""What llama.cpp can hold of a model, read from its loader (`src/models/*.cpp`), as data. Torch-free.

A family is written in its own architecture while its layers are alike. Of the families that compute as Llama does, models whose
layers differ are written as ``deci``: RMS norms, SwiGLU and rotary positions, with widths, key-value groups and query heads by
layer, and no norm of queries and keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

_SILU = ("silu", "swish")
_GELU_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu")  # llama.cpp has one GELU, in its form with tanh
_FACTORED = ("default", "linear", "llama3", "yarn")  # whose frequencies do not depend on the text's length
# llama.cpp's fixed number of layers at most.
MOST_LAYERS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What llama.cpp holds of a family of models.

    Attributes:
        arch: Its architecture in llama.cpp.
        activations: Activations of the FFN that it computes.
        ropes: Rotary positions that it computes.
        even_because: Why all its layers must be alike; None where they may differ (``deci``).
        unset: Settings that must be absent or false, with what they stand for.
    """

    arch: str
    activations: tuple[str, ...]
    ropes: tuple[str, ...] = _FACTORED
    even_because: str | None = None
    unset: Mapping[str, str]


_LLAMA = Family(arch="llama", activations=_SILU, unset={})
_GEMMA_NORMS = "its norms, its scaled embeddings and its GELU"
_GEMMA_BIAS = {"attention_bias": "biases of the attention's output"}
FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Family(arch="qwen2", activations=_SILU, unset={}),
    "qwen3": Family(
        arch="qwen3",
        activations=_SILU,
        ropes=("default",),
        even_because="its norms of queries and keys (QK-norm)",
        unset=_GEMMA_BIAS,
    ),
    "gemma": Family(arch="gemma", activations=_GELU_TANH, ropes=("default",), even_because=_GEMMA_NORMS, unset=_GEMMA_BIAS),
    "gemma2": Family(arch="gemma2", activations=_GELU_TANH, ropes=("default",), even_because=_GEMMA_NORMS, unset=_GEMMA_BIAS),
    "gemma3_text": Family(
        arch="gemma3",
        activations=_GELU_TANH,
        ropes=("default", "linear"),
        even_because="its norms of queries and keys (QK-norm), its windows and its GELU",
        unset=_GEMMA_BIAS
        | {
            "attn_logit_softcapping": "limits of the attention's logits",
            "use_bidirectional_attention": "attention in both directions",
        },
    ),
    "bert": Family(
        arch="bert",
        activations=("gelu", "gelu_pytorch_tanh", "gelu_new"),
        even_because="its encoders, whose layers all have the widths of the first",
        unset={"is_decoder": "causal attention", "add_cross_attention": "attention to an encoder"},
    ),
}
# Families that people ask for, and what of them is not written.
_REFUSED: Mapping[str, str] = {
    "gpt_oss": "attention sinks and a mixture of experts",
    "mixtral": "a mixture of experts",
    "qwen2_moe": "a mixture of experts",
    "qwen3_moe": "a mixture of experts",
    "granite": "multipliers of embeddings, residuals and logits",
    "cohere": "sublayers that run side by side",
    "olmo2": "norms behind its sublayers",
    "smollm3": "layers without positions",
    "phi3": "fused projections",
    "gemma3": "a part for images",
}
# Numbers of layers for which llama.cpp scales the attention of a Gemma by the width of the model, and not of a head.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3_text": 62}


def family_name(config: Mapping[str, Any]) -> str:
    """Return the family of a config; one of ours names the type that the model was made from."""
    return str(config.get("base_model_type") or config.get("model_type"))


def reason_against(config: Mapping[str, Any], *, alike: bool = True) -> str | None:
    """Return why llama.cpp can't hold such a model, as a sentence; None if it can.

    Args:
        config: The model's config.json.
        alike: Whether all layers will have the same shapes, as in the layout stock.
    """
    name = family_name(config)
    family = FAMILIES.get(name)
    if family is None:
        about = f", which have {_REFUSED[name]}" if name in _REFUSED else ""
        return f"GGUF files are written of {_listed(sorted(FAMILIES))} models, and not of {name}{about}"
    if not alike and family.even_because is not None:
        return (
            f"llama.cpp reads {name} models whose layers are alike; its architecture for layers that differ (deci) does not "
            f"hold {family.even_because}. Layout stock keeps the layers alike"
        )
    given = [
        *(_unknown(f"the activation {own}") for own in _activations(config) if own not in family.activations),
        *(_unknown(f"rotary positions of the type {own}") for own in _ropes(config) if own not in family.ropes),
        *(_unknown(what) for key, what in family.unset.items() if config.get(key)),
    ]
    return next(iter(given), None) or _of_positions(config) or _of_scale(config, name)


def _unknown(what: str) -> str:
    return f"llama.cpp does not compute {what} in a model of this family"


def _activations(config: Mapping[str, Any]) -> list[str]:
    own = config.get("hidden_activation") or config.get("hidden_act")
    return [str(own)] if own is not None else []


def rope_parts(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the rotary positions of a config: one entry, or one a kind of layer."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        return []
    own = cast("Mapping[str, Any]", rope)
    parts = [cast("Mapping[str, Any]", part) for part in own.values() if isinstance(part, Mapping)]
    return parts or [own]


def _ropes(config: Mapping[str, Any]) -> list[str]:
    return [str(part.get("rope_type") or part.get("type") or "default") for part in rope_parts(config)]


def _of_positions(config: Mapping[str, Any]) -> str | None:
    if config.get("position_embedding_type") not in (None, "absolute"):
        return _unknown(f"positions of the type {config['position_embedding_type']}")
    shares = [config.get("partial_rotary_factor"), *(part.get("partial_rotary_factor") for part in rope_parts(config))]
    if any(share not in (None, 1, 1.0) for share in shares):
        return _unknown("rotary positions of a part of each head")
    layers = config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > MOST_LAYERS:
        return f"llama.cpp reads models of at most {MOST_LAYERS} layers, and this one has {layers}"
    return None


def _of_scale(config: Mapping[str, Any], name: str) -> str | None:
    """Return why the attention's scale is not the one that llama.cpp takes for a Gemma of so many layers."""
    wanted = config.get("query_pre_attn_scalar")
    if name not in _SCALED_BY_WIDTH or wanted is None:
        return None
    by_width = config.get("num_hidden_layers") == _SCALED_BY_WIDTH[name]
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if by_width and isinstance(heads, int) and heads > 0 and isinstance(hidden, int):
        taken: object = hidden // heads
    else:
        taken = config.get("head_dim")
    return None if taken is None or taken == wanted else _unknown(f"attention that is scaled by {wanted} in place of {taken}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"
