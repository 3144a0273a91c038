"""Paths of models and data sets, and the files that hold the splits of a data set. Torch-free.

Whether a reference is a path, `pruning_core.spec.references` says; the word is here for who asks about files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePath

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.references import is_local

__all__ = [
    "DATA_SUFFIXES",
    "IMAGE_SUFFIXES",
    "appearing",
    "check_split",
    "data_suffix",
    "image_folder",
    "is_local",
]

_LONGEST_NAME = 240  # file systems take 255, the ending included
_TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".ndjson")
# In the order of preference, where a split lies there in several forms.
DATA_SUFFIXES = (
    ".parquet",
    *_TEXT_SUFFIXES,
    ".arrow",
    ".feather",
    *(f"{suffix}{packed}" for packed in (".gz", ".zst") for suffix in _TEXT_SUFFIXES),
)
# JSON that describes a data set, and is none.
DESCRIPTIONS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})


def data_suffix(name: str) -> str | None:
    """Return the ending by which a file's name says its form, that of its compression included; None: it is no data file."""
    if name in DESCRIPTIONS or name.startswith((".", "cache-")):
        return None
    return next((suffix for suffix in DATA_SUFFIXES if name.lower().endswith(suffix) and len(name) > len(suffix)), None)


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def image_folder(folder: Path, split: str) -> Path | None:
    """Return the folder that holds the images of a split, one folder a class.

    Returns:
        None where it does not exist, or holds data files instead of folders.
    """
    check_split(split)
    path = folder / split
    if not path.is_dir():
        return None
    entries = list(path.iterdir())
    has_tables = any(data_suffix(entry.name) for entry in entries) and not any(entry.is_dir() for entry in entries)
    return None if has_tables else path


def check_split(split: str, param: str = "task.train_split") -> None:
    """Refuse a name that, joined to the folder, would lead out of it.

    Raises:
        DatasetInvalid: It does, or it is too long.
    """
    path = PurePath(split)
    if path.is_absolute() or ".." in path.parts or "\0" in split:
        raise DatasetInvalid(
            "the name of a split leads out of the data set's folder; name a file in it, without its ending: train",
            param=param,
        )
    if any(len(part.encode(errors="replace")) > _LONGEST_NAME for part in path.parts):
        raise DatasetInvalid(f"the name of a split may have {_LONGEST_NAME} bytes at most", param=param)


@contextmanager
def appearing(out: Path) -> Generator[Path]:
    """Yield a folder to write into. It becomes ``out`` if the context ends without an error, and is removed otherwise.

    The folder lies in a hidden folder beside ``out``, with a unique name. Runs with the same ``out`` do not disturb each other,
    and nothing that was there before is removed. The folder of a killed process stays, since it cannot be told from one that is
    still being written.

    Args:
        out: A path that does not exist, or an empty folder.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True) as own:
        partial = Path(own) / out.name  # one level down: the umask decides its permissions, and tempfile's folder is private
        partial.mkdir()
        yield partial
        partial.replace(out)
