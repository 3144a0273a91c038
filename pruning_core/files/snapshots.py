"""Folders of the Hub's cache, given as paths: ``models--org--name`` holds snapshots of commits, and the names of branches.

Torch-free. What is resolved here lies within the folder that was given; links out of it are the business of who reads it.
"""

from __future__ import annotations

import re
from pathlib import Path

from pruning_core.errors import ModelUnreadable

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LONGEST_REF = 128
_MOST_SHOWN = 5
_PREFIX = "models--"


def resolve_snapshot(folder: Path) -> Path:
    """Return the snapshot of a model that a folder of the Hub's cache holds: its only one, or that of its main branch.

    Args:
        folder: Any folder. Others than those of the cache are returned as they are.

    Raises:
        ModelUnreadable: It has no snapshot, or several and no main branch among them.
    """
    snapshots = folder / "snapshots"
    if not folder.name.startswith(_PREFIX) or (not snapshots.is_dir() and (folder / "config.json").is_file()):
        return folder
    found = sorted(path.name for path in snapshots.iterdir() if path.is_dir()) if snapshots.is_dir() else []
    name = folder.name.removeprefix(_PREFIX).replace("--", "/")[:128]
    if not found:
        raise ModelUnreadable(
            f"the folder is one of the Hub's cache and holds no snapshot of {name}; download it, or give its id", param="model"
        )
    main = commit_named(folder, "main")
    commit = main if main in found else found[0] if len(found) == 1 else None
    if commit is None:
        shown = ", ".join(one[:64] for one in found[:_MOST_SHOWN]) + (", ..." if len(found) > _MOST_SHOWN else "")
        raise ModelUnreadable(
            f"the folder of the Hub's cache holds {len(found)} snapshots of {name}, and refs/main names none of them; give the "
            f"path of one, snapshots/ and its commit: {shown}",
            param="model",
        )
    return snapshots / commit


def said_of_snapshot(folder: Path) -> tuple[str, ...]:
    """Say which snapshot is read, of a folder that is one of the Hub's cache or a snapshot in it; nothing of others.

    Raises:
        ModelUnreadable: As `resolve_snapshot`.
    """
    snapshot = resolve_snapshot(folder)
    repository = snapshot.parent.parent
    if snapshot.parent.name != "snapshots" or not repository.name.startswith(_PREFIX):
        return ()
    of = " of its main branch" if commit_named(repository, "main") == snapshot.name else ""
    return (f"the model's folder is one of the Hub's cache: its snapshot {snapshot.name[:12]}{of} is read",)


def commit_named(repository: Path, branch: str) -> str | None:
    """Return the commit of a branch or tag in the cache; None where there is none, or its file holds something else."""
    path = repository / "refs" / branch
    if not path.is_file():  # a pipe would never end
        return None
    try:
        with path.open(encoding="ascii") as file:
            commit = file.read(_LONGEST_REF).strip()
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def is_commit(name: str) -> bool:
    """Return whether a name is a commit's, by which the cache calls its snapshots."""
    return _COMMIT.fullmatch(name) is not None
