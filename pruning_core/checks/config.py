"""Checks of a configuration's entries, by what transformers declares of them. Torch-free.

transformers validates the types of what it reads, and takes its own defaults for what is not stated. ``config_fields.json`` has
both for the model types of `checks.heads`; a test compares it with transformers. Of other types, what all have in common.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from pruning_core.checks.declared import declared
from pruning_core.checks.hooks import native_types
from pruning_core.checks.rotary import ROTARY, odd_rotary
from pruning_core.errors import ModelUnreadable

_SHOWN = 48
# Sizes, which are counts of something: none of them is 0.
_SIZES = (
    *("hidden_size", "n_embd", "d_model", "dim", "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    *("decoder_layers", "num_decoder_layers", "num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    *("encoder_attention_heads", "decoder_attention_heads", "num_key_value_heads", "intermediate_size", "n_inner", "ffn_dim"),
    *("hidden_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "vocab_size", "max_position_embeddings", "n_positions"),
    *("head_dim", "d_kv", "embedding_size", "decoder_vocab_size", "image_size", "patch_size", "num_channels"),
    *("relative_attention_num_buckets", "relative_attention_max_distance", "sliding_window", "query_pre_attn_scalar"),
)
_LARGEST_SIZE = 2**40
_MOST_CLASSES = 2**20
_SHARES = ("dropout", "pdrop", "layerdrop", "drop_path", "initializer_range")
_ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation", "dense_act_fn")
# Model types that cut a text into such chunks before their FFNs.
_CHUNKED = frozenset(
    {
        *("albert", "bert", "camembert", "distilbert", "electra", "ernie", "megatron-bert", "rembert"),
        *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"),
    }
)
_WORDS = {
    "int": "a whole number",
    "float": "a number with a decimal point",
    "bool": "true or false",
    "str": "a text",
    "null": "null",
    "dict": "an object",
}


def check_config(config: Mapping[str, Any]) -> None:
    """Check a configuration's entries one by one.

    Raises:
        ModelUnreadable: transformers would refuse an entry, or fail on it. The message names the key and what may stand there.
    """
    model_type: object = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in native_types():
        shown = "no model_type" if model_type is None else f"the model_type {_shown(model_type)}"
        raise ModelUnreadable(
            f"config.json has {shown}, for which transformers has no class; give a model of a type that it has", param="model"
        )
    for name, (kinds, *_default) in declared("config_fields")["models"].get(model_type, {}).items():
        if name in config and name not in ROTARY and not any(_is(config[name], kind) for kind in kinds):
            raise _refused(name, config[name], " or ".join(dict.fromkeys(map(_words, kinds))))
    for name, value, must in _odd(config):
        raise _refused(name, value, must)


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the sizes that transformers takes where it states none."""
    fields = declared("config_fields")["models"].get(str(config.get("model_type")), {})
    return {name: stated[1] for name, stated in fields.items() if len(stated) > 1} | dict(config)


def _odd(config: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield the entries whose values are of the right type and of no use, with what may stand there."""
    for name in _SIZES:
        value: object = config.get(name)
        if name == "sliding_window" and value == 0 and config.get("use_sliding_window") is False:
            continue  # as transformers writes it of a Qwen2-MoE that has none
        if type(value) is int and not 1 <= value <= _LARGEST_SIZE:
            yield name, value, "a whole number from 1"
    for name, value in config.items():
        share = any(part in name for part in _SHARES) and type(value) in (int, float)
        if share and not 0 <= cast("float", value) <= 1:
            yield name, value, "a number from 0 to 1"
        if name in _ACTIVATIONS and (not isinstance(value, str) or value not in declared("config_fields")["activations"]):
            yield name, value, f"one of {', '.join(declared('config_fields')['activations'])}"
    if config.get("add_cross_attention"):
        yield "add_cross_attention", config["add_cross_attention"], "false: a model that reads another one's output has no task"
    if config.get("return_dict") is False:
        yield "return_dict", False, "true: a model's outputs are read by their names"
    chunk = config.get("chunk_size_feed_forward")
    if type(chunk) is int and chunk > 1 and config.get("model_type") in _CHUNKED:
        yield "chunk_size_feed_forward", chunk, "0: a text whose length is no multiple of it would fail"
    yield from _odd_layers(config)
    for name in ("id2label", "label2id"):
        if not isinstance(config.get(name), dict | None):
            yield name, config[name], "an object"
    names = cast("dict[str, object]", config.get("id2label") or {})
    if not all(number.isdecimal() and isinstance(name, str | int | float) for number, name in names.items()):
        yield "id2label", names, "an object, from the numbers of classes to their names, which are texts"
    yield from _odd_forms(config)
    yield from odd_rotary(config)


def _odd_forms(config: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what transformers makes something of by its value: types of numbers, and as many names as there are classes."""
    known = declared("config_fields")["dtypes"]
    for name in ("dtype", "torch_dtype"):
        value = config.get(name)
        if value is not None and value not in known:
            yield name, value, "the name of a type of numbers of torch, such as float32"
    count = config.get("num_labels", 0)
    if type(count) is not int or not 0 <= count <= _MOST_CLASSES:
        yield "num_labels", count, f"a whole number from 0 to {_MOST_CLASSES}"


def _odd_layers(config: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    kinds, layers = config.get("layer_types"), config.get("num_hidden_layers")
    if not isinstance(kinds, list):
        return
    if isinstance(layers, int) and len(cast("list[object]", kinds)) != layers:
        yield "layer_types", kinds, f"a list of one name for each of the {layers} layers"
    if "sliding_attention" in kinds and config.get("sliding_window", 1) is None:
        yield "sliding_window", None, "a whole number, since layer_types has layers with a window"


def _is(value: object, kind: str) -> bool:
    """Return whether a value of JSON is of a declared type. true is no whole number, and 1 has no decimal point."""
    if kind.startswith("list["):
        items = cast("Sequence[object]", value) if isinstance(value, list) else (None,)
        own = kind.removeprefix("list[").removesuffix("]").split("|")
        return isinstance(value, list) and all(any(_is(item, one) for one in own) for item in items)
    if kind.startswith("="):
        return value == kind[1:]
    if kind == "null":
        return value is None
    if kind == "torch":
        return False  # as text, which is declared beside it
    types: Mapping[str, type] = {"int": int, "float": float, "bool": bool, "str": str, "dict": dict}
    return type(value) is types[kind]


def _words(kind: str) -> str:
    if kind.startswith("list["):
        return "a list"
    return kind[1:] if kind.startswith("=") else _WORDS.get(kind, "a text")


def _refused(name: str, value: object, must: str) -> ModelUnreadable:
    return ModelUnreadable(f"config.json: {name} is {_shown(value)}, and must be {must}", param="model")


def _shown(value: object) -> str:
    """Return a value of a stranger's file, fit to be quoted in a sentence."""
    text = json.dumps(value)  # escaped: all of it is ASCII
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
