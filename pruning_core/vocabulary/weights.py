"""The weights and settings of a model that count tokens: found in the loaded model, and cut in its files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_core.errors import ModelUnreadable
from pruning_core.files.checkpoint import WEIGHTS_NAME, read_checkpoint
from pruning_core.files.tensors import map_tensors
from pruning_core.spec.vocabulary import PARAM

_SIZES = ("vocab_size",)
_ID_ENDINGS = ("_token_id", "_token_ids")
_LISTS_OF_IDS = frozenset(
    {"suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "forced_decoder_ids"}
)


def rows_of(model: PreTrainedModel) -> int:
    """Return the number of rows of the model's embeddings."""
    return cast("nn.Embedding", model.get_input_embeddings()).weight.shape[0]


def names_by_token(model: PreTrainedModel) -> set[str]:
    """Return the names of the parameters and buffers that have a row for each token: embeddings, heads and their biases.

    Raises:
        ModelUnreadable: The model has two vocabularies.
    """
    rows = rows_of(model)
    head = model.get_output_embeddings()
    if head is not None and cast("Tensor", head.weight).shape[0] != rows:
        raise ModelUnreadable("the model's embeddings and its head have two vocabularies, and only one can be cut", param=PARAM)
    modules: list[nn.Module] = [model.get_input_embeddings(), *([] if head is None else [head])]
    if model.config.is_encoder_decoder:
        modules += [
            own for name, own in model.named_modules() if name.endswith("embed_tokens") and isinstance(own, nn.Embedding)
        ]
    found = {
        _place(tensor)
        for module in modules
        for tensor in (module.weight, getattr(module, "bias", None))
        if isinstance(tensor, Tensor) and tensor.shape[0] == rows
    }
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name for name, own in named if _place(own) in found or name.endswith("final_logits_bias")}


def _place(tensor: Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape


def renames_of(model: PreTrainedModel) -> dict[str, str]:
    """Return what transformers renames while it loads the model: patterns of stored names, and what takes their place."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    plain = [own for own in get_model_conversion_mapping(model) if type(own) is WeightRenaming and not own.scope_prefix]
    return {own.compiled_sources.pattern: own.target_patterns[0] for own in plain}


def write_cut_weights(
    source: Path, folder: Path, names: Collection[str], rows: int, kept: Sequence[int], *, renames: Mapping[str, str]
) -> None:
    """Write a checkpoint's weights with some rows of those tensors that have one for each token.

    Args:
        source: Folder of the checkpoint.
        folder: Folder of the new one.
        names: Names of these tensors in the loaded model.
        rows: Number of their rows.
        kept: The rows that stay, ascending.
        renames: As of `renames_of`.
    """
    index, written = torch.tensor(kept), dict[str, Tensor]()
    facts = read_checkpoint(source)
    stored = {plain: name for name, plain in facts.plain.items()}
    for name, mapped in map_tensors(facts).items():
        own = mapped.mapped()
        if rows in own.shape and any(_same(_loaded(name, renames), other) for other in names):
            own = own.index_select(own.shape.index(rows), index)
        written[stored.get(name, name)] = own
    save_file(written, folder / WEIGHTS_NAME, metadata={"format": "pt"})


def _loaded(stored: str, renames: Mapping[str, str]) -> str:
    for pattern, target in renames.items():
        found = re.search(pattern, stored)
        if found is not None:
            stored = stored.replace(found.group(), target, 1)
    return stored


def _same(stored: str, name: str) -> bool:
    """Return whether a stored name is a parameter's: one of the two may have the prefix of a head's body."""
    return stored == name or stored.endswith(f".{name}") or name.endswith(f".{stored}")


def ids_in(settings: object) -> set[int]:
    """Return the ids of tokens that a model's settings name."""
    found: set[int] = set()

    def see(value: int) -> int:
        found.add(value)
        return value

    _with_ids(settings, see)
    return found


def cut_settings(settings: Mapping[str, Any], rows: int, number: Mapping[int, int]) -> dict[str, Any]:
    """Return settings with the new ids, and with the new number of tokens where they had the old one.

    Args:
        settings: Of config.json or generation_config.json.
        rows: The old number of rows.
        number: New id of each token, by its old one.
    """

    # -1 and -100 stand for no token; beyond the last row there is none either.
    def new(old: int) -> int:
        return number[old] if 0 <= old < rows else old

    found = _with_ids(settings, new)
    return cast("dict[str, Any]", _with_size(found, rows, len(number)))


def _with_ids(value: object, new: Callable[[int], int], *, is_id: bool = False) -> object:
    match value:
        case dict():
            fields = cast("dict[str, object]", value)
            return {
                name: _with_ids(own, new, is_id=name.endswith(_ID_ENDINGS) or name in _LISTS_OF_IDS)
                for name, own in fields.items()
            }
        case list():
            return [_with_ids(own, new, is_id=is_id) for own in cast("list[object]", value)]
        case int() if is_id and not isinstance(value, bool):
            return new(value)
        case _:
            return value


def _with_size(value: object, rows: int, left: int) -> object:
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, object]", value)
    return {
        name: left if name in _SIZES and own == rows else _with_size(own, rows, left) if isinstance(own, dict) else own
        for name, own in fields.items()
    }


def read_settings(path: Path) -> dict[str, Any]:
    """Read a file of settings; empty where there is none."""
    return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
