"""Paths of models and data sets, and the files that hold the splits of a data set. Torch-free."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePath

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.references import is_local, split_revision

# With what the rooms above look for here, though it stands in a room that the spec can import.
__all__ = ["DATA_SUFFIXES", "IMAGE_SUFFIXES", "appearing", "image_folder", "is_local", "split_file", "split_revision"]

_LONGEST_NAME = 240  # file systems take 255, the ending included
DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")


def split_file(folder: Path, split: str) -> Path:
    """Return the path of the file that holds a split.

    Raises:
        DatasetInvalid: The folder or the file is missing, or the name leads out of the folder.
    """
    _check_split(split)
    if not folder.is_dir():
        raise DatasetInvalid("no such folder; give one that holds the splits of the data set", param="task.dataset")
    for suffix in DATA_SUFFIXES:
        path = folder / f"{split}{suffix}"
        if path.is_file():
            return path
    names = ", ".join(f"{split}{suffix}" for suffix in DATA_SUFFIXES)
    raise DatasetInvalid(f"the data folder has no {split} split; it needs one of {names}", param="task.dataset")


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def image_folder(folder: Path, split: str) -> Path | None:
    """Return the folder that holds the images of a split, one folder a class, or None where it does not exist."""
    _check_split(split)
    path = folder / split
    return path if path.is_dir() else None


def _check_split(split: str) -> None:
    """Refuse a name that, joined to the folder, would lead out of it."""
    path = PurePath(split)
    if path.is_absolute() or ".." in path.parts or "\0" in split:
        raise DatasetInvalid(
            "the name of a split leads out of the data set's folder; name a file in it, without its ending: train",
            param="task.train_split",
        )
    if any(len(part.encode(errors="replace")) > _LONGEST_NAME for part in path.parts):
        raise DatasetInvalid(f"the name of a split may have {_LONGEST_NAME} bytes at most", param="task.train_split")


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
