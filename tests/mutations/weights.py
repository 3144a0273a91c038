"""Mutations of checkpoints: names, shapes, types, values and shards of tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PREFIXES = ("module.", "_orig_mod.", "base_model.model.", "model.", "transformer.", "encoder.", "_orig_mod.module.")

Tensors = dict[str, Any]


def mutate_weights(folder: Path, operation: str, index: int) -> None:
    """Read the weights, mutate them, and write them back."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    if not path.is_file():
        return
    tensors = load_file(path)
    OPERATIONS[operation](tensors, index)
    if operation in _SHARDED:
        path.unlink()
        _write_shards(folder, tensors, index, whole=operation == "shards")
        return
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})


def _chosen(tensors: Tensors, index: int) -> str:
    return sorted(tensors)[index % len(tensors)]


def _drop(tensors: Tensors, index: int) -> None:
    del tensors[_chosen(tensors, index)]


def _drop_layer(tensors: Tensors, index: int) -> None:
    for name in [name for name in tensors if f".{index % 2}." in name]:
        del tensors[name]


def _rename(tensors: Tensors, index: int) -> None:
    name = _chosen(tensors, index)
    tensors[name.replace("weight", "kernel") if "weight" in name else f"{name}_"] = tensors.pop(name)


def _prefix(tensors: Tensors, index: int) -> None:
    prefix = _PREFIXES[index % len(_PREFIXES)]
    for name in list(tensors):
        tensors[prefix + name] = tensors.pop(name)


def _adapters(tensors: Tensors, index: int) -> None:
    import torch

    name = next((name for name in sorted(tensors)[index % len(tensors) :] if tensors[name].ndim == 2), None)
    if name is not None:
        out, inner = tensors[name].shape
        tensors[name.replace(".weight", ".lora_A.default.weight")] = torch.zeros(4, inner)
        tensors[name.replace(".weight", ".lora_B.default.weight")] = torch.zeros(out, 4)


def _extra(tensors: Tensors, index: int) -> None:
    import torch

    tensors[("position_ids", "extra.weight", "lm_head.weight", "score.weight", "classifier.weight")[index % 5]] = torch.zeros(
        (1 + index % 70, 32)
    )


def _cut(tensors: Tensors, index: int) -> None:
    name = _chosen(tensors, index)
    value = tensors[name]
    if value.ndim:
        tensors[name] = value[: max(1, len(value) // 2)] if index % 2 else value[..., : max(1, value.shape[-1] // 2)]


def _grow(tensors: Tensors, index: int) -> None:
    import torch

    name = _chosen(tensors, index)
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]]) if tensors[name].ndim else tensors[name]


def _transpose(tensors: Tensors, index: int) -> None:
    name = _chosen(tensors, index)
    tensors[name] = tensors[name].T if tensors[name].ndim == 2 else tensors[name].reshape(-1, 1)


def _flat(tensors: Tensors, index: int) -> None:
    name = _chosen(tensors, index)
    tensors[name] = tensors[name].reshape(-1)


def _type(tensors: Tensors, index: int) -> None:
    import torch

    kinds = (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int8,
        torch.uint8,
        torch.int64,
        torch.bool,
        torch.float8_e4m3fn,
    )
    kind = kinds[index % len(kinds)]
    chosen = list(tensors) if index % 3 else [_chosen(tensors, index)]
    for name in chosen:
        tensors[name] = tensors[name].to(kind)


def _values(tensors: Tensors, index: int) -> None:
    name = _chosen(tensors, index)
    value = tensors[name]
    if not value.is_floating_point():
        return
    match index % 6:
        case 0:
            value.fill_(float("nan"))
        case 1:
            value.fill_(float("inf"))
        case 2:
            value.zero_()
        case 3:
            value.fill_(1e30)
        case 4:
            value.reshape(-1)[:1] = float("nan")
        case _:
            value.mul_(1e-30)


def _all_zero(tensors: Tensors, _index: int) -> None:
    for value in tensors.values():
        value.zero_()


def _quantised(tensors: Tensors, _index: int) -> None:
    import torch

    for name in [name for name in tensors if name.endswith(".weight") and tensors[name].ndim == 2 and "embed" not in name]:
        value = tensors.pop(name)
        tensors[name.replace(".weight", ".qweight")] = torch.zeros(
            max(1, value.shape[1] // 8), value.shape[0], dtype=torch.int32
        )
        tensors[name.replace(".weight", ".scales")] = torch.ones(1, value.shape[0])


def _unchanged(_tensors: Tensors, _index: int) -> None:
    """The shards are made of them as they are."""


_SHARDED = ("shards", "missing-shard")
OPERATIONS: Mapping[str, Callable[[Tensors, int], None]] = {
    "drop": _drop,
    "drop-layer": _drop_layer,
    "rename": _rename,
    "prefix": _prefix,
    "adapters": _adapters,
    "extra": _extra,
    "cut": _cut,
    "grow": _grow,
    "transpose": _transpose,
    "flat": _flat,
    "type": _type,
    "values": _values,
    "all-zero": _all_zero,
    "quantised": _quantised,
    "shards": _unchanged,
    "missing-shard": _unchanged,
}


def _write_shards(folder: Path, tensors: Tensors, index: int, *, whole: bool) -> None:
    from safetensors.torch import save_file

    names = sorted(tensors)
    half = len(names) // 2
    parts = {"model-00001-of-00002.safetensors": names[:half], "model-00002-of-00002.safetensors": names[half:]}
    for file, held in parts.items():
        save_file({name: tensors[name].contiguous() for name in held}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, held in parts.items() for name in held}
    if not whole:
        match index % 4:
            case 0:
                (folder / "model-00002-of-00002.safetensors").unlink()
            case 1:
                weight_map[names[0]] = "model-00003-of-00003.safetensors"
            case 2:
                weight_map.pop(names[-1])
            case _:
                weight_map[names[0]] = "model-00002-of-00002.safetensors"
    said = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(said), encoding="utf-8")


def mutate_header(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the header of a safetensors file, and leave its bytes as they are."""
    if not path.is_file():
        return
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(change(json.loads(data[8 : 8 + length]))).encode("utf-8", "replace")
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
