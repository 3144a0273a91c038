"""Writing a GGUF file, and reading it back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from pruning_core.artifacts.exports.gguf.base import NotHeld, Value
from pruning_core.artifacts.exports.gguf.tensors import Placed

_MOST_F16 = float(np.finfo(np.float16).max)
# The alignment of tensors in a file.
_ALIGNMENT = 32
# Largest error of a value, relative to the largest of its tensor: half of a step, or a whole one where a type's steps reach
# less far to one side.
_ERRORS: Mapping[Kind, float] = {
    Kind.F32: 1e-6,
    Kind.F16: 2**-10,
    Kind.BF16: 2**-7,
    Kind.Q8_0: 1 / 127,
    Kind.Q6_K: 1 / 16,
    Kind.Q5_0: 1 / 12,
    Kind.Q5_1: 1 / 12,
    Kind.Q5_K: 1 / 12,
    Kind.Q4_0: 1 / 6,
    Kind.Q4_K: 1 / 6,
}


@dataclass(frozen=True, slots=True)
class FileType:
    """A type of file that is written here: the type of its matrices, the one of the output's, and llama.cpp's number for it."""

    matrices: Kind
    output: Kind
    number: gguf.LlamaFileType


TYPES: Mapping[str, FileType] = {
    "F32": FileType(Kind.F32, Kind.F32, gguf.LlamaFileType.ALL_F32),
    "F16": FileType(Kind.F16, Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "BF16": FileType(Kind.BF16, Kind.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "Q8_0": FileType(Kind.Q8_0, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    # llama.cpp's own quantizer keeps the output of Q4_0 files finer too (Q6_K, which numpy does not write).
    "Q4_0": FileType(Kind.Q4_0, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}


def kind_of(own: Placed, wanted: FileType) -> Kind:
    """Return the type in which a tensor is written; float16 where its rows are no whole number of blocks."""
    if own.exact:
        return Kind.F32
    kind = wanted.output if own.output else wanted.matrices
    return kind if own.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else Kind.F16


def data_bytes(placed: Sequence[Placed], wanted: FileType) -> int:
    """Return the bytes of a file's tensors, without its head."""
    return sum(-(-_bytes_of(own, kind_of(own, wanted)) // _ALIGNMENT) * _ALIGNMENT for own in placed)


def _bytes_of(own: Placed, kind: Kind) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(own.shape)) // block * size


def write_file(
    path: Path,
    wanted: FileType,
    *,
    arch: str,
    values: Mapping[str, Value],
    placed: Sequence[Placed],
    state: Mapping[str, Tensor],
) -> None:
    """Write a file, tensor by tensor.

    Args:
        path: Where to write.
        wanted: Type of the file.
        arch: Name of the architecture.
        values: The other keys of its head.
        placed: Its tensors.
        state: The model's tensors by name.

    Raises:
        NotHeld: A value is too large for float16.
    """
    writer = gguf.GGUFWriter(path, arch)
    for key, value in values.items():
        _add(writer, key, value)
    writer.add_file_type(wanted.number)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for own in placed:
        kind = kind_of(own, wanted)
        writer.add_tensor_info(own.name, own.shape, np.dtype(np.float32), _bytes_of(own, kind), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for own in placed:
            writer.write_tensor_data(_quantized(own, state, kind_of(own, wanted)))
    finally:
        writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, list(value))


def _quantized(own: Placed, state: Mapping[str, Tensor], kind: Kind) -> np.ndarray[Any, Any]:
    values = own.values(state).contiguous().numpy()
    if kind is Kind.F16 and float(np.abs(values).max(initial=0.0)) > _MOST_F16:
        raise NotHeld(f"the tensor {own.name} has values beyond float16, which ends at {_MOST_F16:.0f}; BF16 holds them")
    return gguf.quantize(values, kind)


def compare(path: Path, arch: str, placed: Sequence[Placed], state: Mapping[str, Tensor]) -> Counter[tuple[str, str]]:
    """Read a file back and compare all its values with the model's.

    Returns:
        How many tensors of each name, without its layer, are of each type, but for vectors.

    Raises:
        NotHeld: The file has other tensors, or values that are further off than its types explain.
    """
    reader = gguf.GGUFReader(path)
    read = {own.name: own for own in reader.tensors}
    field = reader.get_field(gguf.Keys.General.ARCHITECTURE)
    if field is None or field.contents() != arch or set(read) != {own.name for own in placed}:
        raise NotHeld("the file that was written has other tensors than the model")
    types = Counter[tuple[str, str]]()
    for own in placed:
        found = read[own.name]
        kind, wanted = found.tensor_type, own.values(state).numpy()
        values = gguf.dequantize(cast("Any", found.data), kind).reshape(wanted.shape)
        largest = float(np.abs(wanted).max(initial=0.0))
        off = float(np.abs(values - wanted).max(initial=0.0))
        if not off <= _ERRORS[kind] * largest + np.finfo(np.float16).tiny:
            raise NotHeld(
                f"values of {own.name} were written {off:.3g} off, of at most {largest:.3g}: more than {kind.name} explains"
            )
        if not own.exact:
            types[_without_layer(own.name), kind.name] += 1
    return types


def _without_layer(name: str) -> str:
    return ".".join(part for part in name.removesuffix(".weight").split(".") if part != "blk" and not part.isdigit())
