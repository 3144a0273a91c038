"""What the files of sentence-transformers' modules may hold: their entries become arguments, and other names are an error.

A test compares the names with the arguments of the classes. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import cast

# Entries that the first module is made with, by their old names too.
ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
_LARGEST = 2**20
# Arguments of the model, the tokenizer and the configuration that do not change an embedding in float32.
_OF_ALL = frozenset({"attn_implementation", "dtype", "torch_dtype", "trust_remote_code", "use_safetensors"})
_OF_TOKENIZERS = _OF_ALL | {"padding_side"}
_DTYPES = ("auto", "float32", "float16", "bfloat16", "float64", "float", "half", "double")
_PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
_STATES = "token_embeddings"
# Entries of the other modules' files; Pooling, Dense and Normalize leave others unread, or are looked at by their readers.
MODULE_KEYS: Mapping[str, frozenset[str]] = {"LayerNorm": frozenset({"dimension"}), "Dropout": frozenset({"dropout"})}


def _is_null(value: object) -> bool:
    return value is None


def _is_switch(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _is_empty(value: object) -> bool:
    return value is None or value == {}


# What stands in the file of the first module, by name: whether a value is known here, and what it must be.
TRANSFORMER_KEYS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "transformer_task": (lambda value: value == "feature-extraction", "feature-extraction"),
    "modality_config": (lambda value: value == {"text": _PLAIN_TEXT}, "plain text by last_hidden_state"),
    "module_output_name": (lambda value: value in (None, _STATES), _STATES),
    "max_seq_length": (
        lambda value: value is None or (type(value) is int and 1 <= value <= _LARGEST),
        f"a whole number from 1 to {_LARGEST}, or null",
    ),
    "do_lower_case": (_is_switch, "true or false"),
    "unpad_inputs": (_is_switch, "true, false or null"),
    "backend": (lambda _value: True, "torch"),  # what loads the model goes before it
    "tokenizer_name_or_path": (_is_null, "null: the tokenizer lies beside the weights"),
    "processing_kwargs": (_is_empty, "empty: it would change the embeddings"),
    "query_expansion": (_is_empty, "empty: it would change the embeddings"),
    "query_length": (_is_null, "null: it would change the embeddings"),
    "document_length": (_is_null, "null: it would change the embeddings"),
    **dict.fromkeys(ARGUMENTS, (lambda value: isinstance(value, dict), "an object")),
}


def odd_settings(entries: Mapping[str, object]) -> Iterator[str]:
    """Yield what is wrong with the file of the first module; each ends a sentence that begins with the file's name."""
    for name, value in entries.items():
        if name not in TRANSFORMER_KEYS:
            yield f"has the entry {shown(name)}, which sentence-transformers does not know; remove it"
            continue
        is_known, must = TRANSFORMER_KEYS[name]
        if not is_known(value):
            yield f"has the {name} {shown(value)}, and it must be {must}"
    if "modality_config" in entries and entries.get("module_output_name") is None:
        yield f"has a modality_config and no module_output_name; set it to {_STATES}"
    for name in ARGUMENTS:
        yield from _odd_arguments(name, cast("Mapping[str, object]", entries.get(name, {})))


def _odd_arguments(group: str, given: Mapping[str, object]) -> Iterator[str]:
    taken = _OF_TOKENIZERS if group in ("tokenizer_args", "processor_kwargs") else _OF_ALL
    for name, value in given.items():
        if name not in taken:
            yield f"has {group} {shown(name)}, which would change the embeddings and is not known here; remove it"
        elif name == "padding_side" and value not in (None, "left", "right"):
            yield f"has the padding_side {shown(value)}; it is left or right"
        elif name == "use_safetensors" and value not in (None, True):
            yield f"has the use_safetensors {shown(value)}; it is true, as no other files of weights are read"
        elif name in ("dtype", "torch_dtype") and value not in (None, *_DTYPES):
            yield f"has the {name} {shown(value)}; it is one of {', '.join(_DTYPES)}"


def odd_modules(listed: list[object]) -> Iterator[str]:
    """Yield what is wrong with a list of modules: of two of one name, the first would be left out."""
    names = [cast("dict[str, object]", entry).get("name") if isinstance(entry, dict) else None for entry in listed]
    texts = [name for name in names if isinstance(name, str) and name and "." not in name]
    if len(texts) < len(names) or len(set(texts)) < len(names):
        yield "must give each module a name of its own, a text without dots, such as its number"
    if not all(isinstance(entry, dict) and "path" in entry for entry in listed):
        yield "must give each module a path"


def shown(value: object) -> str:
    """Return a value of a stranger's file, fit to be quoted in a sentence."""
    return repr(re.sub(r"[^\x20-\x7e]", "?", str(value))[:64])
