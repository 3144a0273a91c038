"""Hooks in a model's files: entries by which it has code loaded that is not transformers' own, or files read from elsewhere.

transformers takes what stands in a model's JSON files for arguments and attributes. docs/decisions/0105 lists what each entry
reaches. Those that honest models have and can do without are left out, and that is said; the others must have a plain value, or
the model is refused. Torch-free: the front end asks at an upload and at a submit, the job asks again before it loads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from pruning_core.checks.hook_rules import LEFT_OUT, TEXTS, hook_of, hooks_of_modules, is_ours
from pruning_core.errors import ModelUnreadable
from pruning_core.files.checkpoint import ADAPTER_CONFIG
from pruning_core.files.companions import MODULE_CONFIGS, module_configs
from pruning_core.files.model_json import read_document
from pruning_core.files.stored_names import is_adapter
from pruning_core.plugin.words import plain_config

# The JSON files that transformers and sentence-transformers read for arguments. The big tables of tokenizers are not of them:
# their keys are words.
HOOKED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "modules.json",
)
_LARGEST_BYTES = 8 * 2**20  # a tokenizer_config.json with ten thousand added tokens has two megabytes
_DEEPEST = 64


def hooked_files(folder: Path) -> tuple[str, ...]:
    """List the names of a model's files that are looked through, those of sentence-transformers' modules included."""
    return (*HOOKED_FILES, *module_configs(folder))


def is_hooked(name: str) -> bool:
    """Return whether a file is one that is looked through."""
    return name in HOOKED_FILES or fnmatchcase(name, MODULE_CONFIGS)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A JSON file of a model without its hooks.

    Attributes:
        value: The parsed file, without what was left out.
        left_out: Names of the entries that were left out; empty where the file can be taken as it is.
    """

    value: Any
    left_out: tuple[str, ...]


def check_hooks(folder: Path) -> tuple[str, ...]:
    """Refuse a model whose files reach for code or files outside it, and say what of such is left out.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        A sentence for each file of which something is left out.

    Raises:
        ModelUnreadable: An entry names code that is not transformers' own, or a file elsewhere, and cannot be left out.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        raise is_adapter(None, f"it has an {ADAPTER_CONFIG}")
    cleaned = {name: found for name in hooked_files(folder) if (found := cleaned_json(folder, name)) is not None}
    config = cleaned.get("config.json")
    said = [_sentence(name, found.left_out) for name, found in cleaned.items() if found.left_out]
    if config is not None:
        _check_native(plain_config(cast("Mapping[str, Any]", config.value)).get("model_type"), config.left_out)
    return tuple(said)


def cleaned_json(folder: Path, name: str) -> Cleaned | None:
    """Read one of the `hooked_files` without its hooks; None where the folder does not have it.

    Raises:
        ModelUnreadable: The file is no JSON, or it has an entry that is refused.
    """
    if not (folder / name).is_file():
        return None
    value = read_document(folder, name, most_bytes=_LARGEST_BYTES)
    if name == "modules.json":
        reason = hooks_of_modules(value)
        if reason is not None:
            raise _refused(name, *reason)
        return Cleaned(value, ())
    if not isinstance(value, dict):
        raise ModelUnreadable(f"{name} must be a JSON object", param="model")
    left_out: list[str] = []
    clean = _without_hooks(value, name, left_out, depth=0)
    if name == "config.json" and is_ours(value):  # what it names is the plug-in, which is here already
        left_out.remove("auto_map")
    return Cleaned(clean, tuple(dict.fromkeys(left_out)))


@cache
def native_types() -> frozenset[str]:
    """Return the model types for which transformers has classes, from a list that a test compares with transformers."""
    return frozenset(files("pruning_core.checks").joinpath("native_types.txt").read_text(encoding="utf-8").split())


def _without_hooks(value: object, name: str, left_out: list[str], depth: int) -> object:
    if depth > _DEEPEST:
        raise ModelUnreadable(f"{name} is nested too deeply", param="model")
    if isinstance(value, list):
        return [_without_hooks(item, name, left_out, depth + 1) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    return dict(_entries(cast("dict[str, object]", value), name, left_out, depth))


def _entries(entries: Mapping[str, object], name: str, left_out: list[str], depth: int) -> Iterator[tuple[str, object]]:
    for key, value in entries.items():
        if key in LEFT_OUT and LEFT_OUT[key](value):
            left_out.append(key)
            continue
        why = hook_of(name, key, value)
        if why is not None:
            raise _refused(name, key, why)
        yield key, value if key in TEXTS else _without_hooks(value, name, left_out, depth + 1)


def _check_native(model_type: object, left_out: tuple[str, ...]) -> None:
    if model_type is not None and not isinstance(model_type, str):
        raise ModelUnreadable("config.json: model_type must be a text", param="model")
    if left_out and model_type not in native_types():
        raise ModelUnreadable(
            f"config.json names code of the model's own ({', '.join(left_out)}), which is never run here, and transformers has "
            f"no native class for model type {_shown(model_type)}; give a model of a type that transformers has",
            param="model",
        )


def _sentence(name: str, left_out: tuple[str, ...]) -> str:
    names = ", ".join(left_out)
    return f"the model's {name} names code of its own ({names}); it was left out, and transformers' own classes are used"


def _refused(name: str, key: str, why: str) -> ModelUnreadable:
    return ModelUnreadable(f"{name}: {_shown(key)} {why}", param="model")


def _shown(value: object) -> str:
    """Return a value of a stranger's file, fit to be quoted in a sentence."""
    return re.sub(r"[^\x20-\x7e]", "?", str(value))[:64]
