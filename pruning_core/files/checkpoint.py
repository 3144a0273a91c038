"""Checkpoints on disk: configuration and headers of the safetensors files. Torch-free; no weight is read."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pruning_core.errors import ModelUnreadable
from pruning_core.files.bounded_json import JsonRefused, read_json
from pruning_core.files.companions import IMAGE_PROCESSOR_NAMES, TIKTOKEN_PATTERNS, TOKENIZER_NAMES
from pruning_core.files.quantised import refuse_gguf, refuse_quantised
from pruning_core.files.rounded import with_rounded
from pruning_core.files.safetensors_header import DTYPE_BYTES, HeaderRefused, StoredTensor, read_header
from pruning_core.files.stored_names import is_adapter, is_computed, plain_names, refuse_adapters, said_of_wrappers
from pruning_core.plugin.words import plain_config

WEIGHTS_NAME = "model.safetensors"


INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}", re.ASCII)


_PICKLE_PATTERNS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


_LARGEST_ADAPTER_BYTES = 2**20
_LARGEST_CONFIG_BYTES = 16 * 2**20
_LARGEST_INDEX_BYTES = 64 * 2**20
_MOST_SHARDS = 1000
_LONGEST_FILE_NAME = 255
_MOST_TENSORS = 1_000_000  # of all shards together


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """Facts from the files of a checkpoint.

    Attributes:
        config: Its configuration; of a bundle, as that of its base model.
        shapes: Shape of each tensor, by its name. Tables that transformers computes are left out.
        dtypes: Number of values of each type, as safetensors names types.
        weight_files: The safetensors files.
        wrappers: What was taken off the tensors' names (`files.stored_names`); empty for most.
        plain: Name of each tensor, by the name that it has in the files.
        computed_bytes: Bytes of stored tables that transformers computes, which are no parameters.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, int]
    weight_files: tuple[Path, ...]
    wrappers: tuple[str, ...] = ()
    plain: Mapping[str, str] = field(default_factory=dict[str, str])
    computed_bytes: int = 0

    @property
    def parameters(self) -> int:
        """Number of stored values that are parameters or buffers of the model."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight files, without the tables that are no parameters."""
        return sum(path.stat().st_size for path in self.weight_files) - self.computed_bytes


def read_checkpoint(folder: Path) -> CheckpointFacts:
    """Read a checkpoint's configuration and safetensors headers, and check that it has a tokenizer or an image processor.

    Raises:
        ModelUnreadable: One of them is missing or corrupt, or the weights are pickle files.
    """
    _refuse_adapter_folder(folder)
    config = _read_config(folder)
    files, named = _weight_files(folder)
    _require_reader(folder)
    stored = _stored_tensors(files)
    lost = sorted(named - stored.keys())
    if lost:
        raise ModelUnreadable(
            f"{INDEX_NAME} names {len(lost)} tensors that its shards do not hold ({lost[0][:128]}, ...); they belong to "
            "different models, or a shard was replaced",
            param="model",
        )
    refuse_adapters(stored)
    names = plain_names(stored, config.get("model_type"))
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, int] = {}
    computed = 0
    for tensor in stored.values():
        name = names.of[tensor.name]
        if is_computed(name, tensor.shape):
            computed += tensor.values * DTYPE_BYTES.get(tensor.dtype, 0)
            continue
        shapes[name] = tensor.shape
        dtypes[tensor.dtype] = dtypes.get(tensor.dtype, 0) + tensor.values
    refuse_quantised(config, shapes, dtypes)
    shapes = with_rounded(shapes, config, names.of)
    return CheckpointFacts(config, shapes, dtypes, files, names.wrappers, names.of, computed)


def notes_on_files(facts: CheckpointFacts) -> tuple[str, ...]:
    """Say what of a checkpoint's tensors is read otherwise than it is stored."""
    notes = list(said_of_wrappers(facts.wrappers))
    if facts.computed_bytes:
        notes.append(
            f"the weight files store {facts.computed_bytes:,} bytes of masks or positions that transformers computes; they "
            "count neither as parameters nor as bytes"
        )
    return tuple(notes)


def _stored_tensors(files: Sequence[Path]) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    for path in files:
        found |= {tensor.name: tensor for tensor in _header(path)}
        if len(found) > _MOST_TENSORS:
            raise ModelUnreadable(f"the weight files hold more than {_MOST_TENSORS} tensors", param="model")
    return found


def _refuse_adapter_folder(folder: Path) -> None:
    """Refuse a folder with an adapter: it has another model loaded, or is none without it."""
    if not (folder / ADAPTER_CONFIG).is_file() and not (folder / _ADAPTER_WEIGHTS).is_file():
        return
    base: object = None
    with contextlib.suppress(JsonRefused, OSError):
        said = read_json(folder / ADAPTER_CONFIG, most_bytes=_LARGEST_ADAPTER_BYTES)
        base = cast("dict[str, object]", said).get("base_model_name_or_path") if isinstance(said, dict) else None
    found = next(name for name in (ADAPTER_CONFIG, _ADAPTER_WEIGHTS) if (folder / name).is_file())
    raise is_adapter(base if isinstance(base, str) and _HUB_ID.fullmatch(base) else None, f"it has an {found}")


def _require_reader(folder: Path) -> None:
    """Insist on a tokenizer or an image processor.

    Without these files, transformers makes an empty tokenizer, and every text becomes unknown tokens.
    """
    if any((folder / name).is_file() for name in (*TOKENIZER_NAMES, *IMAGE_PROCESSOR_NAMES)):
        return
    if any(path for pattern in TIKTOKEN_PATTERNS for path in folder.glob(pattern)):
        raise ModelUnreadable(
            "the model's only tokenizer is a file of tiktoken or of mistral-common, which is not read here; save it as "
            "tokenizer.json (convert it by transformers, and save_pretrained) beside the weights",
            param="model",
        )
    names = ", ".join(TOKENIZER_NAMES[:3])
    raise ModelUnreadable(f"the model folder has no tokenizer; put its files ({names}, ...) beside the weights", param="model")


def classes_of(facts: CheckpointFacts) -> int:
    """Return the number of outputs of a checkpoint's task head, as transformers reads it from the configuration."""
    return stated_classes(facts.config) or 2


def stated_classes(config: Mapping[str, Any]) -> int | None:
    """Return the number of classes that a configuration states: ``num_labels`` goes before the names of another number."""
    names, count = config.get("id2label"), config.get("num_labels")
    if isinstance(count, int):
        return count
    return len(cast("dict[str, object]", names)) if isinstance(names, dict) else None


def names_of(facts: CheckpointFacts) -> tuple[str, ...]:
    """List the class names of a checkpoint's task head by index; empty where the configuration has none or malformed ones."""
    names = facts.config.get("id2label")
    given = cast("dict[str, object]", names) if isinstance(names, dict) else {}
    if len(given) != classes_of(facts):  # transformers replaces them by LABEL_0, LABEL_1, ...
        return ()
    found = [given.get(str(index)) for index in range(len(given))]
    return tuple(map(str, found)) if all(isinstance(name, str | int | float) for name in found) else ()


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelUnreadable("no such folder; give a Hub id or a folder with config.json and weights", param="model")
    try:
        config = read_json(path, most_bytes=_LARGEST_CONFIG_BYTES)
    except FileNotFoundError:
        refuse_gguf(folder)
        raise ModelUnreadable("the model folder has no config.json", param="model") from None
    except JsonRefused as error:
        raise ModelUnreadable(f"config.json {error}", param="model") from None
    except OSError:
        raise ModelUnreadable("config.json is not readable JSON", param="model") from None
    if not isinstance(config, dict):
        raise ModelUnreadable("config.json must be a JSON object", param="model")
    return plain_config(cast("dict[str, Any]", config))


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
    refuse_gguf(folder)
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
