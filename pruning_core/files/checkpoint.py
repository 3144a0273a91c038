"""Checkpoints on disk: configuration and headers of the safetensors files. Torch-free; no weight is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pruning_core.errors import ModelUnreadable

WEIGHTS_NAME = "model.safetensors"


INDEX_NAME = "model.safetensors.index.json"


_PICKLE_PATTERNS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


_HEADER_LIMIT = 100 * 2**20  # safetensors' own bound on the header


_DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """Facts from the files of a checkpoint.

    Attributes:
        config: Its configuration.
        shapes: Shape of each tensor, by stored name.
        dtypes: Number of values of each type, as safetensors names types.
        weight_files: The safetensors files.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, int]
    weight_files: tuple[Path, ...]

    @property
    def parameters(self) -> int:
        """Number of stored values."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight files."""
        return sum(path.stat().st_size for path in self.weight_files)


def read_checkpoint(folder: Path) -> CheckpointFacts:
    """Read a checkpoint's configuration and safetensors headers, and check that it has a tokenizer or an image processor.

    Raises:
        ModelUnreadable: One of them is missing or corrupt, or the weights are pickle files.
    """
    config = _read_config(folder)
    files, named = _weight_files(folder)
    # Without these files, transformers makes an empty tokenizer, and every text becomes unknown tokens.
    if not any((folder / name).is_file() for name in (*TOKENIZER_NAMES, *IMAGE_PROCESSOR_NAMES)):
        names = ", ".join(TOKENIZER_NAMES[:3])
        raise ModelUnreadable(
            f"the model folder has no tokenizer; put its files ({names}, ...) beside the weights", param="model"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, int] = {}
    for path in files:
        for name, dtype, shape in _read_header(path):
            shapes[name] = shape
            dtypes[dtype] = dtypes.get(dtype, 0) + math.prod(shape)
    lost = sorted(named - shapes.keys())
    if lost:
        raise ModelUnreadable(
            f"{INDEX_NAME} names {len(lost)} tensors that its shards do not hold ({lost[0][:128]}, ...); they belong to "
            "different models, or a shard was replaced",
            param="model",
        )
    return CheckpointFacts(config, shapes, dtypes, files)


def classes_of(facts: CheckpointFacts) -> int:
    """Return the number of outputs of a checkpoint's task head, as transformers reads it from the configuration."""
    names, count = facts.config.get("id2label"), facts.config.get("num_labels")
    if isinstance(names, dict):
        return len(cast("dict[str, object]", names))
    return count if isinstance(count, int) else 2


def names_of(facts: CheckpointFacts) -> tuple[str, ...]:
    """List the class names of a checkpoint's task head by index; empty where the configuration has none or malformed ones."""
    names = facts.config.get("id2label")
    given = cast("dict[str, object]", names) if isinstance(names, dict) else {}
    found = [given.get(str(index)) for index in range(len(given))]
    return tuple(cast("list[str]", found)) if all(isinstance(name, str) for name in found) else ()


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelUnreadable("no such folder; give a Hub id or a folder with config.json and weights", param="model")
    try:
        config: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelUnreadable("the model folder has no config.json", param="model") from None
    except (OSError, ValueError):
        raise ModelUnreadable("config.json is not readable JSON", param="model") from None
    if not isinstance(config, dict):
        raise ModelUnreadable("config.json must be a JSON object", param="model")
    return cast("dict[str, Any]", config)


def _weight_files(folder: Path) -> tuple[tuple[Path, ...], frozenset[str]]:
    """Find the weight files, and the tensor names that the shard index lists; none for a single file."""
    single, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    if single.is_file():
        return (single,), frozenset()
    if index.is_file():
        try:
            places: dict[str, object] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted({str(name) for name in places.values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ModelUnreadable(f"{INDEX_NAME} is not a valid shard index", param="model") from None
        outside = [name[:128] for name in names if name != Path(name).name]
        if outside:
            raise ModelUnreadable(
                f"{INDEX_NAME} names {outside[0]!r}; shards must lie in the model's folder, beside the index", param="model"
            )
        files = tuple(folder / name for name in names)
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise ModelUnreadable(f"shards are missing: {', '.join(missing)}", param="model")
        return files, frozenset(places)
    if any(path for pattern in _PICKLE_PATTERNS for path in folder.glob(pattern)):
        raise ModelUnreadable(
            "the weights are pickle files, which can run code when loaded; convert them to model.safetensors",
            param="model",
        )
    raise ModelUnreadable(f"the model folder has no {WEIGHTS_NAME}", param="model")


def _read_header(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """Read and check the header of one safetensors file: (name, dtype, shape) of each tensor.

    The safetensors library is not used because the front end has neither torch nor numpy, and because a truncated file must be
    found without reading it whole.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
                raise ValueError(length)
            header = json.loads(file.read(length))
        entries: list[tuple[str, str, tuple[int, ...]]] = []
        end = 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            shape, (start, stop) = tuple(int(n) for n in entry["shape"]), entry["data_offsets"]
            dtype = str(entry["dtype"])
            if dtype in _DTYPE_BYTES and stop - start != math.prod(shape) * _DTYPE_BYTES[dtype]:
                raise ValueError(name)
            entries.append((str(name), dtype, shape))
            end = max(end, stop)
        if 8 + length + end != size:
            raise ValueError("data")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelUnreadable(
            f"{path.name} is corrupt or truncated: it is not a valid safetensors file", param="model"
        ) from None
    return entries


TOKENIZER_NAMES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


IMAGE_PROCESSOR_NAMES = ("preprocessor_config.json", "processor_config.json")
