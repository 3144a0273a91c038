"""Digests of files, and of a checkpoint: the sha256 of each of its files that a run reads. Torch-free."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pruning_core.errors import ModelUnreadable
from pruning_core.files.checkpoint import INDEX_NAME, read_checkpoint
from pruning_core.files.companions import companions_of
from pruning_core.files.gguf import gguf_in
from pruning_core.files.snapshots import is_commit


def model_digests(folder: Path) -> dict[str, str]:
    """Compute the sha256 of a checkpoint's weights, configuration, tokenizer and other files that a bundle has from it.

    This reads all weights once, about a second a gigabyte.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        The digests by the files' paths in the folder.

    Raises:
        ModelUnreadable: The checkpoint is missing or corrupt, or a file cannot be read.
    """
    if (single := gguf_in(folder)) is not None:
        return {single.name: sha256_of(single)}
    weights = [path.relative_to(folder).as_posix() for path in read_checkpoint(folder).weight_files]
    names = {"config.json", INDEX_NAME, *weights, *companions_of(folder)}
    try:
        return {name: sha256_of(folder / name) for name in sorted(names) if (folder / name).is_file()}
    except OSError as error:
        raise ModelUnreadable("a file of the model cannot be read by this machine", param="model") from error


def commit_of(folder: Path) -> str | None:
    """Return the commit of a folder of the Hub's cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and is_commit(folder.name) else None


def sha256_of(path: Path) -> str:
    """Compute the sha256 of a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
