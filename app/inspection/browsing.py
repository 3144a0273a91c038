"""What lies in the folders that jobs may name: one folder at a time, confined as the paths of requests are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from app.inspection.references import Confinement
from app.refusals import Refused

_MOST = 500  # members of a folder that are shown; of more, people type the name
_MOST_READ = 20_000  # members that are looked at for those
_DATA = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".gz")


@dataclass(frozen=True, slots=True)
class Member:
    """A folder or a file. ``holds``: what a folder looks like, by the names of what lies in it alone."""

    name: str
    path: str
    is_folder: bool
    holds: Literal["model", "data", ""] = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder: its path as it was asked for, its parent if that is open, too, and its members; or the roots."""

    path: str
    parent: str | None
    members: tuple[Member, ...]
    is_cut: bool = False


def listing(place: str, roots: Sequence[Path], closed: Sequence[Path]) -> Listing:
    """List a folder under the allowed roots; without a place, list these.

    Members that lead out, that lie in the service's own folders, or that are neither folder nor file are not shown: nothing
    outside is touched.

    Args:
        place: Absolute path of a folder, or empty.
        roots: Absolute paths of the allowed roots.
        closed: The service's own folders.

    Raises:
        Refused: The place leads out, or is no folder that can be read.
    """
    confinement = Confinement(roots, closed, "at")
    if not place:
        return Listing("", None, tuple(_member(str(root), str(root), root) for root in roots if root.is_dir()))
    folder = confinement.follow(place)
    try:
        with os.scandir(folder) as found:
            looked_at = [_open_member(entry, confinement) for entry in islice(found, _MOST_READ)]
    except OSError:
        raise Refused("path_not_allowed", "there is no folder here that this server can read", "at") from None
    members = sorted(filter(None, looked_at), key=lambda own: (not own.is_folder, own.name.casefold()))
    above = str(folder.parent)
    try:
        confinement.follow(above)
    except Refused:
        above = ""
    return Listing(str(folder), above, tuple(members[:_MOST]), is_cut=len(members) > _MOST)


def _open_member(entry: os.DirEntry[str], confinement: Confinement) -> Member | None:
    """Return a member that may be named; None for any other."""
    try:
        entry.name.encode()
        path = confinement.follow(entry.path)
        if path.is_dir():
            return _member(entry.name, entry.path, path)
        return Member(entry.name, entry.path, is_folder=False) if path.is_file() else None
    except (Refused, OSError, UnicodeEncodeError):
        return None


def _member(name: str, path: str, folder: Path) -> Member:
    """Describe a folder by the names in it."""
    try:
        with os.scandir(folder) as found:
            names = [own.name for own in islice(found, _MOST)]
    except OSError:
        return Member(name, path, is_folder=True)
    if "config.json" in names or any(own.endswith(".gguf") for own in names):
        return Member(name, path, is_folder=True, holds="model")
    return Member(name, path, is_folder=True, holds="data" if any(own.endswith(_DATA) for own in names) else "")
