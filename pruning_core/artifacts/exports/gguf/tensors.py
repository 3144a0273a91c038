"""The tensors of a checkpoint as llama.cpp names and lays them out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from torch import Tensor

from pruning_core.artifacts.exports.gguf.base import NotHeld
from pruning_core.artifacts.exports.gguf.rotary import Rotary
from pruning_core.engines.llama_cpp import FAMILIES, family_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Modules of a block by llama.cpp's names for them.
_LLAMA: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GEMMA2 = _LLAMA | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_BERT: Mapping[str, str] = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
_DECODER_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BERT_OUTER = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
# llama.cpp's classifiers are BERT's: a tanh of the first token's state, and a linear layer.
_CLASSIFIER = {"cls": "bert.pooler.dense", "cls.output": "classifier"}
_QKV = ("attn_q", "attn_k", "attn_v")
_FREQUENCIES = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Arch:
    """How the tensors of an architecture of llama.cpp are found.

    Attributes:
        modules: Modules of a block by llama.cpp's names.
        biased: Which of them llama.cpp loads a bias of; None: all.
        permuted: Whether rotary positions turn neighbouring values, where transformers turns the halves of a head.
        shift: What is added to the weights of norms.
    """

    modules: Mapping[str, str]
    biased: tuple[str, ...] | None = _QKV
    permuted: bool = False
    shift: float = 0.0


_WIDE = (*_QKV, "attn_output", "ffn_gate", "ffn_up", "ffn_down")
ARCHS: Mapping[str, Arch] = {
    "llama": Arch(_LLAMA, biased=_WIDE, permuted=True),
    "deci": Arch(_LLAMA, biased=_WIDE, permuted=True),
    "qwen2": Arch(_LLAMA),
    "qwen3": Arch(_LLAMA | _QK_NORMS),
    "gemma": Arch(_LLAMA, biased=(), shift=1.0),
    "gemma2": Arch(_GEMMA2, biased=(), shift=1.0),
    "gemma3": Arch(_GEMMA2 | _QK_NORMS, biased=(), shift=1.0),
    "bert": Arch(_BERT, biased=None),
}


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Query heads, key-value groups and FFN width of a layer; no heads where it has no attention."""

    heads: int
    groups: int
    ffn: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor of the file.

    Attributes:
        name: llama.cpp's name for it.
        source: Its name in the model.
        shape: Its shape, rows first.
        heads: Number of heads whose rows are permuted; None where none are.
        shift: What is added to its values.
        exact: Whether it is written in float32 whatever the file's type: vectors, and what llama.cpp adds to others as it is.
        output: Whether the logits are computed from it.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int | None = None
    shift: float = 0.0
    exact: bool = False
    output: bool = False

    def values(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the values to be written, in float32."""
        own = state[self.source].detach().float().cpu()
        if self.heads is not None:
            halves = own.reshape(self.heads, 2, own.shape[0] // self.heads // 2, *own.shape[1:])
            own = halves.swapaxes(1, 2).reshape(own.shape)
        return own + self.shift if self.shift else own


@dataclass(frozen=True, slots=True)
class Laid:
    """A model as llama.cpp sees it.

    Attributes:
        arch: Name of the architecture.
        head_size: Width of a head.
        layers: Shape of each layer that is left.
        placed: The tensors of the file.
    """

    arch: str
    head_size: int
    layers: tuple[LayerShape, ...]
    placed: tuple[Placed, ...]

    @property
    def alike(self) -> bool:
        """Whether all layers have the same shape."""
        return len(set(self.layers)) == 1


def state_of(model: PreTrainedModel, rotary: Rotary | None) -> dict[str, Tensor]:
    """Return the tensors of a model by name, a decoder's tied output once, as its embeddings; and factors of frequencies."""
    state = cast("dict[str, Tensor]", model.state_dict())
    head, embeddings = state.get("lm_head.weight"), state.get("model.embed_tokens.weight")
    if head is not None and embeddings is not None and head.data_ptr() == embeddings.data_ptr():
        del state["lm_head.weight"]
    if rotary is not None and rotary.factors is not None:
        state[_FREQUENCIES] = rotary.factors
    return state


def laid_out(model: PreTrainedModel, head_size: int, rotary: Rotary | None) -> Laid:
    """Find the place of every tensor of a model in llama.cpp.

    Args:
        model: A decoder with its output, or an encoder with or without a classifier.
        head_size: Width of a head.
        rotary: A decoder's rotary positions.

    Raises:
        NotHeld: A tensor has no place, or llama.cpp would compute something else.
    """
    config = model.config.to_dict()
    family = FAMILIES[family_name(config)]
    encoder = family.arch == "bert"
    shapes = {name: tuple(tensor.shape) for name, tensor in state_of(model, rotary).items()}
    prefix = "bert." if encoder and any(name.startswith("bert.") for name in shapes) else ""
    blocks = f"{prefix}encoder.layer." if encoder else "model.layers."
    every = _layers(shapes, blocks, ARCHS[family.arch].modules, head_size)
    kept = [place for place, layer in enumerate(every) if layer.heads or layer.ffn]  # an empty layer passes its input on
    layers = tuple(every[place] for place in kept)
    square = bool(layers) and layers[0].heads * head_size == config.get("hidden_size")
    if encoder and not square:
        raise NotHeld("llama.cpp reads encoders with all their heads, and this one has fewer than its config makes it have")
    # Architectures that take no head's width, or no factors of frequencies, are written as the one that does.
    plain = rotary is not None and rotary.plain
    own = "llama" if family.arch == "qwen2" and not (square and plain) else family.arch
    arch = _arch(own, family.even_because, layers)
    inner, idle = _inner(shapes, blocks, kept, layers, arch)
    placed = [*_outer(shapes, _BERT_OUTER if encoder else _DECODER_OUTER, prefix, arch), *inner]
    if not encoder and "output.weight" not in {own.name for own in placed}:
        placed = [replace(own, output=own.name == "token_embd.weight") for own in placed]
    idle |= {name for name, shape in shapes.items() if 0 in shape}
    _require_all(set(shapes) - {own.source for own in placed} - idle, pooler=encoder)
    return Laid(arch, head_size, layers, tuple(placed))


def _layers(shapes: Mapping[str, tuple[int, ...]], blocks: str, modules: Mapping[str, str], head_size: int) -> list[LayerShape]:
    numbers = [int(found[1]) for name in shapes if (found := re.match(rf"{re.escape(blocks)}(\d+)\.", name))]

    def rows(layer: int, name: str) -> int:
        return shapes.get(f"{blocks}{layer}.{modules[name]}.weight", (0,))[0]

    return [
        LayerShape(rows(layer, "attn_q") // head_size, rows(layer, "attn_k") // head_size, rows(layer, "ffn_up"))
        for layer in range(max(numbers, default=-1) + 1)
    ]


def _arch(own: str, even_because: str | None, layers: Sequence[LayerShape]) -> str:
    """Choose the architecture.

    Raises:
        NotHeld: None holds the layers.
    """
    if not layers:
        raise NotHeld("the model has no layers")
    for place, layer in enumerate(layers):
        if layer.heads and not layer.ffn:
            raise NotHeld(f"layer {place} has attention and no FFN: llama.cpp loses the attention of such a layer")
        if layer.groups and layer.heads % layer.groups:
            raise NotHeld(f"layer {place} shares {layer.groups} key-value groups among {layer.heads} query heads unevenly")
    if not layers[0].heads:
        raise NotHeld("the first layer has no attention, and llama.cpp takes the width of a head from it")
    if len(set(layers)) == 1:
        return own
    if even_because is not None:
        raise NotHeld(f"layers differ, and llama.cpp's architecture for that (deci) does not hold {even_because}")
    return "deci"


def _outer(shapes: Mapping[str, tuple[int, ...]], outer: Mapping[str, str], prefix: str, arch: str) -> list[Placed]:
    """Place the tensors outside of the blocks."""
    sources = {name: prefix + path for name, path in outer.items()}
    if "classifier.weight" in shapes:
        sources |= _CLASSIFIER
    found = [
        Placed(
            name + ending,
            path + ending,
            shape,
            shift=ARCHS[arch].shift if name == "output_norm" else 0.0,
            exact=len(shape) == 1 or name in ("position_embd", "token_types"),
            output=name == "output",
        )
        for name, path in sources.items()
        for ending in (".weight", ".bias")
        if (shape := shapes.get(path + ending)) is not None
    ]
    factors = shapes.get(_FREQUENCIES)
    return found if factors is None else [*found, Placed(_FREQUENCIES, _FREQUENCIES, factors, exact=True)]


def _inner(
    shapes: Mapping[str, tuple[int, ...]], blocks: str, kept: Sequence[int], layers: Sequence[LayerShape], arch: str
) -> tuple[list[Placed], set[str]]:
    """Place the tensors of the blocks.

    Returns:
        The tensors, and the names of those that nothing reads: the norms of sublayers that are absent, and of whole layers.
    """
    rules, found = ARCHS[arch], list[Placed]()
    numbers = {f"{blocks}{layer}." for layer in kept}
    idle = {
        name
        for name in shapes
        if name.startswith(blocks) and name.endswith("norm.weight") and not name.startswith(tuple(numbers))
    }
    for number, (layer, shape) in enumerate(zip(kept, layers, strict=True)):
        turned = {"attn_q": shape.heads, "attn_k": shape.groups} if rules.permuted else {}
        for name, path in rules.modules.items():
            endings = (".weight", ".bias") if rules.biased is None or name in rules.biased else (".weight",)
            sources = [(ending, f"{blocks}{layer}.{path}{ending}") for ending in endings]
            if (name.startswith("attn") and not shape.heads) or (name.startswith("ffn") and not shape.ffn):
                idle |= {source for _, source in sources if name.endswith("norm")}
                continue
            shift = rules.shift if name.endswith("norm") else 0.0
            found += [
                Placed(f"blk.{number}.{name}{ending}", source, own, turned.get(name), shift, exact=len(own) == 1)
                for ending, source in sources
                if (own := shapes.get(source)) is not None
            ]
    return found, idle


def _require_all(left: set[str], *, pooler: bool) -> None:
    """Check that no tensor is left over, but for tables and, behind an encoder that makes embeddings, its pooler.

    Raises:
        NotHeld: One is.
    """
    for name in sorted(left):
        table = name.endswith(("position_ids", "token_type_ids", "inv_freq"))
        if not table and not (pooler and name.startswith("pooler.")):
            raise NotHeld(f"the tensor {name} has no place in llama.cpp's architecture")
