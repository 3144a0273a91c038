"""Rounded matrices of a written checkpoint: integers and scales in the place of their weights.

They are read by our plug-in (`per_layer`), which turns them into ordinary weights when the model is loaded: a checkpoint is
smaller on the disk and on its way, and a model in memory is as large as before.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning_core.arch.structure import find_structure, stored_name
from pruning_core.files.checkpoint import INDEX_NAME, read_checkpoint
from pruning_core.files.rounded import SCALES
from pruning_core.files.safetensors_header import DTYPE_BYTES, read_header
from pruning_core.linalg.rounding import Rounded
from pruning_core.plugin.per_layer import unround
from pruning_core.plugin.words import OURS


def store_rounded(folder: Path, rounded: Mapping[str, Rounded], transposed: frozenset[str] = frozenset()) -> None:
    """Replace the weights of rounded matrices in a written checkpoint, file by file.

    Args:
        folder: The checkpoint, in layout ``per_layer``.
        rounded: The matrices, output-major, by module path.
        transposed: Paths of those that their modules have input-major.
    """
    facts = read_checkpoint(folder)
    structure = find_structure(facts.shapes)
    stored = {stored_name(path, structure): path for path in rounded}
    forms: dict[str, dict[str, Any]] = {}
    added: dict[str, str] = {}
    for file in facts.weight_files:
        weights = load_file(file)
        for name in [own for own in weights if own.removesuffix(".weight") in stored and own.endswith(".weight")]:
            base = name.removesuffix(".weight")
            path = stored[base]
            codes, scales, form = packed(rounded[path])
            if path in transposed:
                form["transposed"] = True
            if not torch.equal(unround(path, codes, scales, form), rounded[path].weight.cpu()):
                raise AssertionError(f"the integers of {path} are not the matrix")
            weights |= {name: codes, f"{base}.{SCALES}": scales}
            added[f"{base}.{SCALES}"] = file.name
            forms[path] = form if base == path else form | {"stored": base}
        save_file(weights, file, metadata={"format": "pt"})
        shutil.copymode(folder / "config.json", file)
    lost = sorted(set(rounded) - set(forms))
    if lost:
        raise AssertionError(f"the checkpoint does not store {lost[0]}.weight")
    _complete_index(folder, added)
    path = folder / "config.json"
    words = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    words[OURS] = words[OURS] | {"rounded": forms}
    path.write_text(json.dumps(words, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def packed(rounded: Rounded) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return a matrix as it is stored: rows of bytes, the bits of the scales, and what `unround` needs to read them."""
    outputs, inputs = rounded.codes.shape
    bits, per_byte = rounded.bits, 8 // rounded.bits
    whole = (rounded.codes.cpu().int() + 2 ** (bits - 1)).to(torch.uint8)
    padded = torch.nn.functional.pad(whole, (0, -inputs % per_byte)).unflatten(1, (-1, per_byte))
    codes = (padded << torch.arange(0, 8, bits, dtype=torch.uint8)).sum(2, dtype=torch.uint8)
    scales = rounded.scales.cpu().contiguous().view(torch.int16)
    crc = zlib.crc32(scales.numpy().tobytes(), zlib.crc32(codes.numpy().tobytes()))
    return codes, scales, {"shape": [outputs, inputs], "bits": bits, "group": rounded.group, "crc": crc}


def _complete_index(folder: Path, added: Mapping[str, str]) -> None:
    """Add the scales to the index of a checkpoint of several files."""
    path = folder / INDEX_NAME
    if not path.is_file():
        return
    index = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    index["weight_map"] = dict(sorted({**index["weight_map"], **added}.items()))
    index["metadata"] = index.get("metadata", {}) | {
        "total_size": sum(_tensor_bytes(own) for own in folder.glob("*.safetensors"))
    }
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _tensor_bytes(file: Path) -> int:
    return sum(tensor.values * DTYPE_BYTES[tensor.dtype] for tensor in read_header(file))
