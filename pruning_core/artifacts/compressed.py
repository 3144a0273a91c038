"""The compressed form of a checkpoint: the nonzero values of its sparse matrices, and an index of their positions.

It is a folder inside the bundle, ``compressed/``. ``from_pretrained`` reads it through our plug-in (`per_layer`, of which the
folder has a copy) and gives the same model, bit for bit. Each matrix gets the smallest of three forms, or stays dense if none
saves bytes: one bit for each weight (unstructured), one bit for each segment (block-lasso), or two bits for each value (2:4,
the layout of sparse tensor cores; in general N indices for every M inputs).
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning_core.arch.structure import find_structure, stored_name
from pruning_core.artifacts.configuration import REMOTE_CODE_NAME
from pruning_core.checks.hook_rules import is_ours
from pruning_core.checks.hooks import check_hooks
from pruning_core.errors import ModelUnreadable
from pruning_core.files.checkpoint import INDEX_NAME, WEIGHTS_NAME, read_checkpoint
from pruning_core.files.paths import appearing
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.plugin.per_layer import QUANT_METHOD, unpack
from pruning_core.plugin.words import wrapped_config
from pruning_core.shapes import Bool, Float
from pruning_core.spec.grammar import BlockPattern, SegmentBlock

COMPRESSED_PATH = "compressed"

Hint = BlockPattern | SegmentBlock | None


class NothingToCompress(Exception):
    """No matrix has enough zeros to be smaller in a compressed form."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed matrix.

    Attributes:
        values: Nonzero values in the stored data type, row by row.
        index: Index of their positions, packed bits, uint8.
        form: What `per_layer.support_of` needs to read the index.
    """

    values: Float[Tensor, " n"]
    index: Tensor
    form: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of values and index."""
        return self.values.nbytes + self.index.nbytes


def pack(weight: Float[Tensor, "d k"], hint: Hint) -> Packed | None:
    """Compress a matrix into the smallest form; return None if no form is smaller than the matrix.

    Args:
        weight: The matrix as it is stored.
        hint: The structure of its zeros.
    """
    held = weight != 0
    forms: list[tuple[dict[str, Any], Tensor, Bool[Tensor, "d k"]]] = [({"form": "bits"}, held.flatten(), held)]
    if isinstance(hint, SegmentBlock):
        forms.append(_segments(held, hint))
    elif hint is not None and hint.one_row and (indexed := _indices(held, hint)) is not None:
        forms.append(indexed)
    found = [_packed(weight, form, bits, support) for form, bits, support in forms]
    best = min(reversed(found), key=lambda own: own.nbytes)  # of forms of equal size, the structured one
    return best if best.nbytes < weight.nbytes else None


def write_compressed(folder: Path, hints: Mapping[str, Hint], loader: Mapping[str, str]) -> dict[str, int]:
    """Write weights and config of the compressed form of a written checkpoint into a folder inside it.

    Args:
        folder: The checkpoint's folder; in the per-layer or the stock layout.
        hints: The structure of the zeros of each prunable matrix, by module path.
        loader: The ``auto_map`` of the new config.

    Returns:
        The number of matrices by form; ``dense`` for those that were not compressed.

    Raises:
        NothingToCompress: No matrix was compressed.
    """
    out = folder / COMPRESSED_PATH
    facts = read_checkpoint(folder)
    structure = find_structure(facts.shapes)
    weights: dict[str, Tensor] = {}
    for path in facts.weight_files:
        weights |= load_file(path)
    forms: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for name, hint in hints.items():
        stored = stored_name(name, structure)
        weight = weights[f"{stored}.weight"]
        packed = pack(weight, hint)
        kind = "dense" if packed is None else str(packed.form["form"])
        counts[kind] = counts.get(kind, 0) + 1
        if packed is None:
            continue
        if not torch.equal(_bytes(unpack(name, packed.values, packed.index, packed.form)), _bytes(weight)):
            raise AssertionError(f"the compressed form of {name} is not the matrix")
        del weights[f"{stored}.weight"]
        weights |= {f"{stored}.weight_values": packed.values, f"{stored}.weight_index": packed.index}
        forms[name] = packed.form if stored == name else packed.form | {"stored": stored}
    if not forms:
        raise NothingToCompress("no matrix has enough zeros to be smaller in a compressed form")
    out.mkdir()
    save_file(weights, out / WEIGHTS_NAME, metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", out / WEIGHTS_NAME)
    config = dict(facts.config)
    own = config.get("quantization_config", {"quant_method": QUANT_METHOD, "linears": {}})
    config |= {"quantization_config": own | {"packed": forms}, "auto_map": dict(loader)}
    _write_config(out, wrapped_config(config))
    return counts


def expand(folder: Path, out: Path) -> None:
    """Write the dense layout of a compressed checkpoint, with the tensors that it was made from, bit for bit.

    Args:
        folder: The compressed checkpoint's folder.
        out: Folder to write; must not exist, and appears whole or not at all.

    Raises:
        ModelUnreadable: The checkpoint is not a compressed one, or it is corrupt, or it reaches for code or files outside it.
    """
    facts = read_checkpoint(folder)
    check_hooks(folder)
    own = facts.config.get("quantization_config")
    forms = cast("dict[str, Any]", own).get("packed") if isinstance(own, dict) else None
    if not forms:
        raise ModelUnreadable("this is no compressed checkpoint: its config.json has no packed matrices", param="model")
    weights: dict[str, Tensor] = {}
    for path in facts.weight_files:
        weights |= load_file(path)
    try:
        for name, form in forms.items():
            stored = form.get("stored", name)
            values, index = weights.pop(f"{stored}.weight_values"), weights.pop(f"{stored}.weight_index")
            if zlib.crc32(_bytes(values).numpy().tobytes()) != form["values_crc"]:
                raise ValueError(f"{name}: its values are not those that were written")
            weights[f"{stored}.weight"] = unpack(name, values, index, form)
    except (ValueError, KeyError, TypeError) as error:
        raise_if_exhausted(error, "the compressed checkpoint was expanded")
        raise ModelUnreadable(f"the compressed checkpoint is corrupt: {error}", param="model") from error
    config, rest = dict(facts.config), {key: value for key, value in cast("dict[str, Any]", own).items() if key != "packed"}
    config.pop("quantization_config")
    if not is_ours(facts.config):
        config.pop("auto_map", None)
    with appearing(out) as partial:
        shutil.copytree(folder, partial, ignore=shutil.ignore_patterns("*.safetensors", INDEX_NAME), dirs_exist_ok=True)
        save_file(weights, partial / WEIGHTS_NAME, metadata={"format": "pt"})
        shutil.copymode(partial / "config.json", partial / WEIGHTS_NAME)
        if rest.get("linears") or rest.get("absent"):
            config = wrapped_config(config | {"quantization_config": rest})
        else:  # the stock layout has nothing of ours
            (partial / f"{REMOTE_CODE_NAME}.py").unlink(missing_ok=True)
            config.pop("auto_map", None)
        _write_config(partial, config)


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _packed(weight: Tensor, form: dict[str, Any], bits: Tensor, support: Bool[Tensor, "d k"]) -> Packed:
    values, index = weight[support], _pack_bits(bits)
    whole = form | {"shape": list(weight.shape), "values": values.numel(), "bytes": index.numel()}
    crc = {"crc": zlib.crc32(index.numpy().tobytes()), "values_crc": zlib.crc32(_bytes(values).numpy().tobytes())}
    return Packed(values, index, whole | crc)


def _segments(held: Bool[Tensor, "d k"], block: SegmentBlock) -> tuple[dict[str, Any], Tensor, Bool[Tensor, "d k"]]:
    axis = 1 if block.segment == "row" else 0
    form = {"form": "segments", "axis": axis, "length": block.length}
    lack = [0, 0]
    lack[axis] = -held.shape[axis] % block.length
    padded = torch.nn.functional.pad(held, (0, lack[1], 0, lack[0]))
    kept = padded.unflatten(axis, (-1, block.length)).any(axis + 1)
    return form, kept.flatten(), kept.repeat_interleave(block.length, axis).narrow(axis, 0, held.shape[axis])


def _indices(held: Bool[Tensor, "d k"], pattern: BlockPattern) -> tuple[dict[str, Any], Tensor, Bool[Tensor, "d k"]] | None:
    """Index N positions in every M inputs; blocks with fewer values list zeros as well. None if the matrix does not fit."""
    n, m = pattern.keep, pattern.inputs
    if held.shape[1] % m or not held.numel():
        return None
    blocks = held.reshape(-1, m)
    if int(blocks.sum(1).max()) > n:
        return None
    places = blocks.int().argsort(dim=1, descending=True, stable=True)[:, :n].sort(dim=1).values
    width = (m - 1).bit_length()
    bits = (places[:, :, None] >> torch.arange(width)) & 1
    support = torch.zeros_like(blocks).scatter_(1, places, True)
    return {"form": "indices", "n": n, "m": m}, bits.flatten(), support.view_as(held)


def _pack_bits(bits: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def _bytes(values: Tensor) -> Tensor:
    return values.contiguous().view(-1).view(torch.uint8) if values.numel() else values.new_empty(0, dtype=torch.uint8)
