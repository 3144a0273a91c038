"""Folders of the Hub's cache, given as paths: ``models--org--name`` holds snapshots of commits, and the names of branches.

Torch-free. What is resolved here lies within the folder that was given; links out of it are the business of who reads it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pruning_core.errors import DatasetInvalid, ModelUnreadable

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LONGEST_REF = 128
_MOST_SHOWN = 5
_WORDS = {"models": "model", "datasets": "data set"}


def resolve_snapshot(folder: Path, kind: Literal["models", "datasets"]) -> Path:
    """Return the snapshot that a folder of the Hub's cache holds: its only one, or that of its main branch.

    Args:
        folder: Any folder. Others than those of the cache are returned as they are.
        kind: What it should hold, as the cache names it.

    Raises:
        ModelUnreadable, DatasetInvalid: It has no snapshot, or several and no main branch among them.
    """
    prefix = f"{kind}--"
    snapshots = folder / "snapshots"
    if not folder.name.startswith(prefix) or (not snapshots.is_dir() and (folder / "config.json").is_file()):
        return folder
    found = sorted(path.name for path in snapshots.iterdir() if path.is_dir()) if snapshots.is_dir() else []
    name = folder.name.removeprefix(prefix).replace("--", "/")[:128]
    if not found:
        raise _refused(
            kind, f"the folder is one of the Hub's cache and holds no snapshot of {name}; download it, or give its id"
        )
    main = _main(folder)
    commit = main if main in found else found[0] if len(found) == 1 else None
    if commit is None:
        shown = ", ".join(one[:64] for one in found[:_MOST_SHOWN]) + (", ..." if len(found) > _MOST_SHOWN else "")
        raise _refused(
            kind,
            f"the folder of the Hub's cache holds {len(found)} snapshots of {name}, and refs/main names none of them; give the "
            f"path of one, snapshots/ and its commit: {shown}",
        )
    return snapshots / commit


def said_of_snapshot(folder: Path, kind: Literal["models", "datasets"]) -> tuple[str, ...]:
    """Say which snapshot is read, of a folder that is one of the Hub's cache or a snapshot in it; nothing of others.

    Raises:
        ModelUnreadable, DatasetInvalid: As `resolve_snapshot`.
    """
    snapshot = resolve_snapshot(folder, kind)
    repository = snapshot.parent.parent
    if snapshot.parent.name != "snapshots" or not repository.name.startswith(f"{kind}--"):
        return ()
    of = " of its main branch" if _main(repository) == snapshot.name else ""
    return (f"the {_WORDS[kind]}'s folder is one of the Hub's cache: its snapshot {snapshot.name[:12]}{of} is read",)


def _main(folder: Path) -> str | None:
    """Return the commit of the main branch; None where there is none, or its file holds something else."""
    try:
        with (folder / "refs" / "main").open(encoding="ascii") as file:
            commit = file.read(_LONGEST_REF).strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _refused(kind: Literal["models", "datasets"], message: str) -> ModelUnreadable | DatasetInvalid:
    if kind == "models":
        return ModelUnreadable(message, param="model")
    return DatasetInvalid(message, param="task.dataset")
