"""What can be known of a request before any work starts, from local files alone. Torch-free.

Used twice: by the front end, to refuse a hopeless job at submit, and by the pipeline, so that both say the same.
A checkpoint is judged by its ``config.json`` and by the headers of its safetensors files; no weight is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pruning_core.arch.refused import reason_against, unsupported
from pruning_core.arch.stored import CheckpointStructure, find_structure, unit_groups
from pruning_core.columns import read_columns
from pruning_core.cost import UnitGroup
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.method_checks import check_method, check_request
from pruning_core.model_checks import check_types, check_weights
from pruning_core.reader_checks import (
    IMAGE_PROCESSOR_NAMES,
    TOKENIZER_NAMES,
    check_image_folder,
    check_padding,
    check_reader,
    image_folder,
)
from pruning_core.spec import PruneSpec, TaskSpec
from pruning_core.task_checks import Head, check_head, check_kinds, check_lengths, check_model_class, positions_of
from pruning_core.tasks.heads import check_head_weights, check_type
from pruning_core.tasks.kinds import KINDS

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
_PICKLE_PATTERNS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HEADER_LIMIT = 100 * 2**20  # safetensors' own bound on the header
_DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What the files of a checkpoint say: configuration, tensor shapes, values of each type, sizes."""

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


def is_local(reference: str) -> bool:
    """Tell a path from a Hub id: paths start with ``/``, ``./``, ``../`` or ``~``."""
    return reference.startswith(("/", "./", "../", "~"))


def check_local_inputs(spec: PruneSpec) -> None:
    """Refuse what cannot work, as far as local files tell; Hub ids pass.

    Raises:
        ModelUnreadable: No checkpoint there, a corrupt one, or pickle instead of safetensors.
        UnsupportedArchitecture: No block structure that an adapter knows.
        DatasetInvalid: A split is missing, or a column, or the labels do not fit the model.
        TargetUnreachable: The target is below what any mask can reach.
    """
    check_request(spec)
    head = check_model(spec, Path(spec.model).expanduser()) if is_local(spec.model) else None
    if is_local(spec.task.dataset):
        folder = Path(spec.task.dataset).expanduser()
        for split in (spec.task.train_split, spec.task.validation_split):
            if KINDS[spec.task.type].reads == "image" and (images := image_folder(folder, split)) is not None:
                check_image_folder(images, () if head is None else head.names)
                continue
            columns = read_columns(split_file(folder, split))
            if columns is not None:
                check_columns(spec.task, list(columns), split)
                check_kinds(spec.task, columns, split, head)


def check_model(spec: PruneSpec, folder: Path) -> Head:
    """Refuse a checkpoint that cannot do what a spec asks of it, by its configuration and the headers of its files.

    Args:
        spec: What is asked.
        folder: Where the checkpoint lies.

    Returns:
        The classes of its head.

    Raises:
        ModelUnreadable: No checkpoint there, a corrupt one, one that does not fit its configuration, or pickle.
        UnsupportedArchitecture: No block structure that an adapter knows, or none for the method, the layout or the task.
        DatasetInvalid: The head does not fit the task.
        TargetUnreachable: The target is below what any mask can reach.
    """
    facts = read_checkpoint(folder)
    structure = structure_of(facts)
    groups = unit_groups(structure, facts.config)
    check_types(facts.dtypes)
    check_weights(facts.config, facts.shapes, structure, groups)
    check_method(spec, facts.config, facts.shapes, structure, groups)
    check_type(spec.task.type, facts.config)
    check_model_class(spec.task, facts.config)
    head = Head(classes_of(facts), names_of(facts))
    check_head(spec.task, head.classes, head.names)
    check_head_weights(spec.task.type, facts.config, facts.shapes)
    check_lengths(spec, positions_of(facts.config))
    check_reader(spec.task, folder)
    check_padding(spec.task, folder, facts.config, structure.signature)
    return head


def split_file(folder: Path, split: str) -> Path:
    """Find the file that holds a split.

    Raises:
        DatasetInvalid: The folder or the file is missing.
    """
    if not folder.is_dir():
        raise DatasetInvalid("no such folder; give one that holds the splits of the data set", param="task.dataset")
    for suffix in DATA_SUFFIXES:
        path = folder / f"{split}{suffix}"
        if path.is_file():
            return path
    names = ", ".join(f"{split}{suffix}" for suffix in DATA_SUFFIXES)
    raise DatasetInvalid(f"the data folder has no {split} split; it needs one of {names}", param="task.dataset")


def check_columns(task: TaskSpec, present: list[str], split: str) -> None:
    """Check that a split has the columns that the task reads.

    Raises:
        DatasetInvalid: One is missing.
    """
    wanted = [*task.columns.inputs, *([task.columns.label] if task.columns.label else [])]
    for column in wanted:
        if column not in present:
            have = ", ".join(sorted(present))
            raise DatasetInvalid(
                f"the {split} split has no column {column!r}; it has {have}. Name the right ones in task.columns",
                param="task.columns",
            )


def read_checkpoint(folder: Path) -> CheckpointFacts:
    """Read a checkpoint's configuration and safetensors headers, and see that it has a tokenizer.

    Raises:
        ModelUnreadable: Missing, corrupt, or pickle.
    """
    config = _read_config(folder)
    files, named = _weight_files(folder)
    # transformers would make an empty tokenizer of nothing, and every text would become unknown tokens.
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


def groups_of(facts: CheckpointFacts) -> tuple[UnitGroup, ...]:
    """Describe the prunable units of a checkpoint, sublayer by sublayer in the order in which they run.

    Raises:
        UnsupportedArchitecture: No known block structure.
    """
    return unit_groups(structure_of(facts), facts.config)


def classes_of(facts: CheckpointFacts) -> int:
    """Count the outputs of a checkpoint's task head, as transformers reads its configuration."""
    names, count = facts.config.get("id2label"), facts.config.get("num_labels")
    if isinstance(names, dict):
        return len(cast("dict[str, object]", names))
    return count if isinstance(count, int) else 2


def names_of(facts: CheckpointFacts) -> tuple[str, ...]:
    """List the names of the classes of a checkpoint's task head by index; nothing where it does not say, or says it oddly."""
    names = facts.config.get("id2label")
    given = cast("dict[str, object]", names) if isinstance(names, dict) else {}
    found = [given.get(str(index)) for index in range(len(given))]
    return tuple(cast("list[str]", found)) if all(isinstance(name, str) for name in found) else ()


def structure_of(facts: CheckpointFacts) -> CheckpointStructure:
    """Find the block structure, or say what would be supported.

    Raises:
        UnsupportedArchitecture: No signature fits.
    """
    structure = find_structure(facts.shapes)
    if structure is None or reason_against(facts.config) is not None:
        raise unsupported(facts.config)
    return structure


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
    """Find the files of the weights, and the tensors that an index says are in them."""
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

    Checked here rather than with the library because the front end has neither torch nor numpy, and because a truncated
    file must be told from a whole one without reading it.
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
