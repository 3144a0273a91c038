"""What serving engines can hold of layers that differ, as data; every search obeys it. Torch-free.

Facts of each row, and where they were read: docs/decisions/0112-engines.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.engines import llama_cpp
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.spec.artifacts import ArtifactSpec
from pruning_core.spec.engines import ENGINE_TITLES

# Decoders whose layers are RMSNorm, grouped-query attention with rotary positions, and a SwiGLU: Llama's, under three names.
LLAMA_LIKE = ("llama", "mistral", "qwen2")
# Of llama.cpp's K-quants, a row is cut into blocks of so many weights; of group-wise 4 bits in vLLM, of so many.
_K_BLOCK = 256
_W4_GROUP = 128
_K_TYPES = ("Q4_K_M", "Q5_K_M", "Q6_K")


@dataclass(frozen=True, slots=True)
class Limits:
    """The shapes that a layer may have.

    Attributes:
        step: FFN widths are multiples of it.
        whole_attention: Whether every attention that is there keeps all of its heads.
        absent_from: The first layer that may lack its attention; None where every layer has one. An FFN is never absent.
    """

    step: int
    whole_attention: bool
    absent_from: int | None = None

    def may_lack(self, group: UnitGroup) -> bool:
        """Return whether a sublayer may be absent."""
        return group.kind == "head" and self.absent_from is not None and group.layer >= self.absent_from

    def floor(self, group: UnitGroup) -> int:
        """Return the number of units that must stay, whatever the step of the widths."""
        return 0 if self.may_lack(group) else group.floor

    def counts(self, group: UnitGroup) -> tuple[int, ...]:
        """List the numbers of units that a sublayer may keep, ascending; 0 where it may be absent."""
        if group.kind == "head":
            present = (group.size,) if self.whole_attention else tuple(range(group.floor, group.size + 1))
            return (0, *present) if self.may_lack(group) else present
        first = max(self.step, -(-group.floor // self.step) * self.step)
        return tuple(range(first, group.size + 1, self.step))


Rule = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True, slots=True)
class Engine:
    """What one engine takes in the layout ``serve``.

    Attributes:
        step: FFN widths are multiples of it: where the engine's files or its kernels want that.
        whole_attention: Whether the number of query heads is one for all layers.
        absent_from: The first layer that may lack its attention, by its number from 0; None where every layer must have one.
        rules: What a model must be like; each returns the reason against a configuration.
        rules_of_absent: What a model must be like, too, for layers to lack their attention.
    """

    step: int
    whole_attention: bool
    absent_from: int | None
    rules: tuple[Rule, ...] = ()
    rules_of_absent: tuple[Rule, ...] = ()


def _llama_like(config: Mapping[str, Any]) -> str | None:
    kind = config.get("model_type")
    return None if kind in LLAMA_LIKE else f"it takes layers that differ of {', '.join(LLAMA_LIKE)} alone, and this is a {kind}"


def _silu(config: Mapping[str, Any]) -> str | None:
    act = config.get("hidden_act", "silu")
    return None if act == "silu" else f"it takes the activation silu alone, and this model has {act}"


def _without_window(config: Mapping[str, Any]) -> str | None:
    windowed = config.get("sliding_window") is not None and config.get(
        "use_sliding_window", config.get("model_type") == "mistral"
    )
    return "layers of this model attend to a window of tokens, which is not read for layers that differ" if windowed else None


def _whole_rotary(config: Mapping[str, Any]) -> str | None:
    rope = config.get("rope_parameters")
    shares = (config.get("partial_rotary_factor"), rope.get("partial_rotary_factor") if isinstance(rope, dict) else None)
    return (
        "it turns all of a head, and this model turns a part" if any(share not in (None, 1, 1.0) for share in shares) else None
    )


def _square_heads(config: Mapping[str, Any]) -> str | None:
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if not isinstance(hidden, int) or not isinstance(heads, int):
        return None
    width = config.get("head_dim") or hidden // heads
    return (
        None if width * heads == hidden else f"it takes heads of hidden_size / num_attention_heads, and these are {width} wide"
    )


def _no_biases_of_queries_alone(config: Mapping[str, Any]) -> str | None:
    return (
        "queries, keys and values have biases and the output has none, which it cannot say"
        if config.get("model_type") == "qwen2"
        else None
    )


def _mlx_rope(config: Mapping[str, Any]) -> str | None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else "default"
    return None if kind in ("default", "linear", "llama3", "yarn") else f"it has no rotary positions of the kind {kind}"


_OF_DECI: tuple[Rule, ...] = (_llama_like, _silu, _without_window, _whole_rotary)
# In all of them the first layer has an attention: the length of transformers' key-value cache is that of its first layer,
# DeciLM's code in vLLM has no residual stream before it, and llama.cpp reads the width of a head from it. MLX and our class in
# vLLM may do without, which was not tried: every bundle runs in transformers. transformers also reads the length of a cache of
# windows from the first layer that has one, so that models with windows keep all attentions.
ENGINES: Mapping[str, Engine] = {
    "transformers": Engine(16, whole_attention=False, absent_from=1, rules=(_llama_like,), rules_of_absent=(_without_window,)),
    "vllm": Engine(64, whole_attention=True, absent_from=1, rules=_OF_DECI),
    "vllm-plugin": Engine(64, whole_attention=False, absent_from=1, rules=_OF_DECI),
    "llama.cpp": Engine(
        32,
        whole_attention=False,
        absent_from=1,
        rules=(_llama_like, lambda config: llama_cpp.reason_against(config, alike=False)),
    ),
    "mlx": Engine(
        256, whole_attention=True, absent_from=1, rules=(*_OF_DECI, _square_heads, _no_biases_of_queries_alone, _mlx_rope)
    ),
}
# The engine in which every bundle is loaded and measured, whatever others are asked for.
_OURS = "transformers"


def reason_against(engine: str, config: Mapping[str, Any]) -> str | None:
    """Return why an engine cannot hold a model in the layout ``serve``, as the end of a sentence; None if it can."""
    if engine not in ENGINES:
        return "it reads other files than the layout serve has"
    return next((why for rule in ENGINES[engine].rules if (why := rule(config)) is not None), None)


def limits_of(options: ArtifactSpec, config: Mapping[str, Any], *, drops_attention: bool = False) -> Limits | None:
    """Return what the engines that are asked for can hold together; None in the other layouts.

    Engines that cannot hold the model do not count: their rows of the report say so.

    Args:
        options: Layout, engines and formats.
        config: The model's configuration.
        drops_attention: Whether layers may lack their attention, where the engines take that.

    Raises:
        UnsupportedArchitecture: None of them can hold it, or layers may lack their attention and one does not take it.
    """
    if options.layout != "serve":
        return None
    able = [engine for engine in options.engines if reason_against(engine, config) is None]
    if not able:
        raise UnsupportedArchitecture(
            f"none of the engines can hold this model in the layout serve: {'; '.join(refusals(options, config))}; "
            "use artifacts.layout stock or per_layer",
            param="artifacts.engines",
        )
    steps = [ENGINES[engine].step for engine in able]
    if "gguf" in options.formats and any(kind in _K_TYPES for kind in options.gguf):
        steps.append(_K_BLOCK)
    if "compressed-tensors" in options.formats and options.quantization == "w4a16":
        steps.append(_W4_GROUP)
    whole = any(ENGINES[engine].whole_attention for engine in able)
    return Limits(math.lcm(*steps), whole, _absent_from(able, config) if drops_attention else None)


def _absent_from(able: Sequence[str], config: Mapping[str, Any]) -> int:
    """Return the first layer that may lack its attention in all of some engines.

    Raises:
        UnsupportedArchitecture: One of them takes no layer without.
    """
    firsts: list[int] = []
    for name in dict.fromkeys((_OURS, *able)):
        engine = ENGINES[name]
        why = next((why for rule in engine.rules_of_absent if (why := rule(config)) is not None), None)
        if engine.absent_from is None or why is not None:
            raise UnsupportedArchitecture(
                f"{ENGINE_TITLES[name]} takes no layer without attention of this model"
                f"{'' if why is None else f': {why}'}; leave method.drop_attention out",
                param="method.drop_attention",
            )
        firsts.append(engine.absent_from)
    return max(firsts)


def refusals(options: ArtifactSpec, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence without its end for each engine that cannot hold a model, and for files of llama.cpp that cannot."""
    yield from refusals_of_files(options, config)
    for engine in options.engines if options.layout == "serve" else ():
        why = reason_against(engine, config)
        if why is not None:
            yield f"{ENGINE_TITLES[engine]}: {why}"


def refusals_of_files(options: ArtifactSpec, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence without its end for files of llama.cpp, where they are asked for and cannot hold a model."""
    why = llama_cpp.reason_against(config, alike=options.layout == "stock") if "gguf" in options.formats else None
    if why is not None:
        yield f"gguf: {why}"


def check_limits(limits: Limits, groups: Sequence[UnitGroup]) -> None:
    """Check that the dense model itself is within the limits: widths are only ever lowered.

    Raises:
        UnsupportedArchitecture: It is not.
    """
    for group in groups:
        if group.kind == "neuron" and group.size % limits.step:
            raise UnsupportedArchitecture(
                f"the engines take FFN widths that are multiples of {limits.step}, and layer {group.layer + 1} of the dense "
                f"model is {group.size} wide; ask for other engines or formats, or use artifacts.layout per_layer",
                param="artifacts.engines",
            )
