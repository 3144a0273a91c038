"""Mutations of JSON documents: specs, configurations, tokenizers, headers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Values put in place of others, by index: what people's tools write, and what breaks readers.
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3,
    7,
    33,
    64,
    1_000_000,
    10**12,
    2**63,
    -(2**31),
    10**400,
    0.5,
    0.0,
    -0.25,
    1e308,
    1e-300,
    math.nan,
    math.inf,
    "",
    "x",
    "0",
    "32",
    "auto",
    "none",
    "gelu_new",
    "../../etc/passwd",
    "caf\u00e9 \u202e\u0000",
    "a" * 5000,
    [],
    [1],
    ["a", "b"],
    [[]],
    {},
    {"a": 1},
    {"0": "a", "1": "b"},
    {"x": {"y": [None]}},
)
NESTED_DEEP = 2000

Path_ = tuple[Any, ...]


def paths(document: Any, at: Path_ = ()) -> Iterator[Path_]:
    """List where the values of a document stand, outer ones first; long tables are not looked through."""
    inner: Iterator[tuple[Any, Any]]
    if isinstance(document, dict):
        inner = iter(list(document.items())[:60])
    elif isinstance(document, list):
        inner = iter(list(enumerate(document))[:5])
    else:
        return
    for key, value in inner:
        yield (*at, key)
        yield from paths(value, (*at, key))


def _parent(document: Any, path: Path_) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def _drop(document: Any, path: Path_, _value: Any) -> None:
    del _parent(document, path)[path[-1]]


def _set(document: Any, path: Path_, value: Any) -> None:
    _parent(document, path)[path[-1]] = value


def _rename(document: Any, path: Path_, _value: Any) -> None:
    parent, key = _parent(document, path), path[-1]
    if isinstance(parent, dict):
        parent[f"{key}s" if len(str(key)) % 2 else str(key).title()] = parent.pop(key)


def _nest(document: Any, path: Path_, _value: Any) -> None:
    parent = _parent(document, path)
    parent[path[-1]] = {"value": parent[path[-1]]}


def _list(document: Any, path: Path_, _value: Any) -> None:
    parent = _parent(document, path)
    parent[path[-1]] = [parent[path[-1]], parent[path[-1]]]


def _as_text(document: Any, path: Path_, _value: Any) -> None:
    parent = _parent(document, path)
    parent[path[-1]] = json.dumps(parent[path[-1]]) if not isinstance(parent[path[-1]], str) else f" {parent[path[-1]]} "


def _scale(document: Any, path: Path_, value: Any) -> None:
    parent, found = _parent(document, path), _parent(document, path)[path[-1]]
    by = VALUES.index(value) % 6 if value in VALUES else 0
    if isinstance(found, int | float) and not isinstance(found, bool):
        parent[path[-1]] = (found * 2, found + 1, found - 1, -found, float(found), found // 2 if found else 1)[by]


def _add(document: Any, path: Path_, value: Any) -> None:
    parent = _parent(document, path)
    if isinstance(parent, dict):
        parent["added_by_someone"] = value
    else:
        parent.append(value)


def _deep(document: Any, path: Path_, _value: Any) -> None:
    nested: Any = "x"
    for _ in range(NESTED_DEEP // 4):
        nested = [nested]
    _set(document, path, nested)


OPERATIONS: Mapping[str, Callable[[Any, Path_, Any], None]] = {
    "drop": _drop,
    "set": _set,
    "rename": _rename,
    "nest": _nest,
    "double": _list,
    "as-text": _as_text,
    "scale": _scale,
    "add": _add,
    "deepen": _deep,
}
# Keys that other tools write into config.json, whole.
FOREIGN: tuple[Mapping[str, Any], ...] = (
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"quantization_config": {"quant_method": "compressed-tensors", "format": "dense"}},
    {"quantization_config": {"load_in_4bit": True}},
    {"quantization_config": None},
    {"auto_map": {"AutoModel": "modeling_mine.MyModel"}},
    {"problem_type": "multi_label_classification"},
    {"problem_type": "regression"},
    {"problem_type": "something"},
    {"torch_dtype": "float16"},
    {"torch_dtype": "float8_e4m3fn"},
    {"dtype": "int8"},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"is_decoder": True},
    {"add_cross_attention": True},
    {"num_labels": 5},
    {"id2label": {"0": "a", "1": "a"}},
    {"id2label": {"0": "b", "2": "a"}},
    {"id2label": ["a", "b"]},
    {"label2id": {"a": 0, "b": 7}},
    {"rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    {"rope_parameters": {"rope_type": "no-such"}},
    {"pruned_heads": {"0": [1]}},
    {"pruned_heads": {"0": [99]}},
    {"architectures": ["BertForMaskedLM"]},
    {"architectures": ["LlamaForCausalLM", "BertModel"]},
    {"architectures": []},
    {"model_type": "distilbert"},
    {"model_type": "no-such"},
    {"transformers_version": "9.0"},
    {"attn_implementation": "flash_attention_2"},
    {"_attn_implementation": "flash_attention_2"},
    {"use_cache": "yes"},
    {"pad_token_id": 10_000},
    {"pad_token_id": None},
    {"eos_token_id": [2, 3]},
    {"hidden_act": "no-such"},
    {"layer_norm_eps": 0},
    {"gradient_checkpointing": True},
    {"return_dict": False},
    {"output_attentions": True},
    {"output_hidden_states": True},
    {"chunk_size_feed_forward": 3},
    {"vocab_size": "67"},
    {"max_position_embeddings": 8},
)


def mutated(document: Any, operation: str, index: int, value: Any) -> Any:
    """Mutate a document in place at the value of a number. A document without values becomes the value itself."""
    found = list(paths(document))
    if not found:
        return value
    OPERATIONS[operation](document, found[index % len(found)], value)
    return document


def dumped(document: Any) -> str:
    """Write a document, with the numbers that JSON does not have as Python writes them."""
    return json.dumps(document, indent=1, ensure_ascii=False)
