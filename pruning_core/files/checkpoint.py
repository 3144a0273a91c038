"""Checkpoints on disk: configuration and headers of the safetensors files. Torch-free; no weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pruning_core.errors import ModelUnreadable
from pruning_core.files.bounded_json import JsonRefused, read_json
from pruning_core.files.safetensors_header import HeaderRefused, StoredTensor, read_header

WEIGHTS_NAME = "model.safetensors"


INDEX_NAME = "model.safetensors.index.json"


_PICKLE_PATTERNS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


_LARGEST_CONFIG_BYTES = 16 * 2**20
_LARGEST_INDEX_BYTES = 64 * 2**20
_MOST_SHARDS = 1000
_LONGEST_FILE_NAME = 255
_MOST_TENSORS = 1_000_000  # of all shards together


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
        for tensor in _header(path):
            shapes[tensor.name] = tensor.shape
            dtypes[tensor.dtype] = dtypes.get(tensor.dtype, 0) + tensor.values
        if len(shapes) > _MOST_TENSORS:
            raise ModelUnreadable(f"the weight files hold more than {_MOST_TENSORS} tensors", param="model")
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
        config = read_json(path, most_bytes=_LARGEST_CONFIG_BYTES)
    except FileNotFoundError:
        raise ModelUnreadable("the model folder has no config.json", param="model") from None
    except JsonRefused as error:
        raise ModelUnreadable(f"config.json {error}", param="model") from None
    except OSError:
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
            places = _places(read_json(index, most_bytes=_LARGEST_INDEX_BYTES))
        except JsonRefused as error:
            raise ModelUnreadable(f"{INDEX_NAME} is not a valid shard index: it {error}", param="model") from None
        except OSError:
            raise ModelUnreadable(f"{INDEX_NAME} is not readable", param="model") from None
        names = sorted(set(places.values()))
        outside = [name[:128] for name in names if not _is_in_folder(name)]
        if outside:
            raise ModelUnreadable(
                f"{INDEX_NAME} names {outside[0]!r}; shards must lie in the model's folder, beside the index", param="model"
            )
        files = tuple(folder / name for name in names)
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            shown = ", ".join(name[:128] for name in missing[:8]) + (", ..." if len(missing) > 8 else "")
            raise ModelUnreadable(f"shards are missing: {shown}", param="model")
        return files, frozenset(places)
    if any(path for pattern in _PICKLE_PATTERNS for path in folder.glob(pattern)):
        raise ModelUnreadable(
            "the weights are pickle files, which can run code when loaded; convert them to model.safetensors",
            param="model",
        )
    raise ModelUnreadable(f"the model folder has no {WEIGHTS_NAME}", param="model")


def _places(index: object) -> dict[str, str]:
    """Return the file of each tensor, by its name, as a shard index says."""
    found = cast("dict[str, object]", index).get("weight_map") if isinstance(index, dict) else None
    if not isinstance(found, dict) or not found:
        raise JsonRefused("has no weight_map of names of tensors and files")
    places = cast("dict[str, object]", found)
    if not all(isinstance(name, str) for name in places.values()):
        raise JsonRefused("has a weight_map that names something else than files")
    if len(places) > _MOST_TENSORS or len(set(places.values())) > _MOST_SHARDS:
        raise JsonRefused(f"names more than {_MOST_TENSORS} tensors or {_MOST_SHARDS} files")
    return cast("dict[str, str]", places)


def _is_in_folder(name: str) -> bool:
    return name == Path(name).name and name != ".." and "\0" not in name and len(name.encode()) <= _LONGEST_FILE_NAME


def _header(path: Path) -> list[StoredTensor]:
    try:
        return read_header(path)
    except HeaderRefused as error:
        raise ModelUnreadable(f"{path.name[:128]} {error}", param="model") from None
    except OSError:
        raise ModelUnreadable(f"{path.name[:128]} cannot be read", param="model") from None


TOKENIZER_NAMES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


IMAGE_PROCESSOR_NAMES = ("preprocessor_config.json", "processor_config.json")
