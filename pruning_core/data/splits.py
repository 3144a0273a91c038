"""Which files hold a split: in a folder as people have it, in a copy of the Hub's, as ``save_to_disk`` writes it. Torch-free.

A folder is read as one or several shelves: what lies in it by the names of splits, what its README.md describes, what lies in
one of its folders. The first shelf with one of the two splits counts, for both of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pruning_core.data.described import described_shelf, has_configs
from pruning_core.data.shelves import Shelf, saved_shelf, shelf_of
from pruning_core.data.table import Role
from pruning_core.errors import DatasetInvalid
from pruning_core.files.paths import check_split, data_suffix
from pruning_core.files.snapshots import commit_named, is_commit
from pruning_core.spec.prune import TaskSpec

# What a split is called where it is not called what the task asks for by default. The last of them is a last resort.
OTHER_NAMES: Mapping[Role, Sequence[str]] = {
    "train": ("train", "training"),
    "validation": ("validation", "dev", "valid", "val", "eval", "evaluation", "test"),
}
SHARE = 0.1  # held out where there is no other split than the one to train on
_MOST_SHOWN = 12
_LARGEST_INFO = 2**24


class NoSuchSplit(DatasetInvalid):
    """The folder has files, or none, of which none is the split."""


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a split.

    Attributes:
        name: Its name; that of the file, where the data has no splits.
        files: The files, in their order.
        share: Share of their rows that is the validation split; the others are the training split. None: all are this split.
        notes: What was guessed to find it.
    """

    name: str
    files: Sequence[Path]
    share: float | None = None
    notes: tuple[str, ...] = ()


def find_split(root: Path, task: TaskSpec, role: Role, *, described: bool = False) -> Found:
    """Find the files of the split that has a role.

    Args:
        root: A folder, or a data file.
        task: The task, which names the splits, the configuration and the share.
        role: Which of its splits.
        described: Whether what README.md describes counts more than what lies there, as it does on the Hub.

    Raises:
        NoSuchSplit: There is no such split; the message says what lies there instead.
        DatasetInvalid: There is no such folder, a shard is missing, or a name leads out of the folder.
    """
    check_split(task.train_split)
    check_split(task.validation_split, "task.validation_split")
    if task.config is not None:
        check_split(task.config, "task.config")
    shelf = _shelf(_revision_of(root, task), task, described=described)
    return _chosen(shelf, task, role)


def _shelf(root: Path, task: TaskSpec, *, described: bool) -> Shelf:
    """Choose the first shelf on which one of the task's splits stands, or else the first that is not empty."""
    if root.is_file():
        if data_suffix(root.name) is None:
            raise DatasetInvalid(
                f"{root.name[:64]} is no data file; give a folder, or a file of Parquet, JSON Lines or CSV",
                param="task.dataset",
            )
        return Shelf({root.name: (root,)}, "the file")
    if not root.is_dir():
        raise DatasetInvalid(
            f"no such folder or file: {root.name[:64]}; give a folder that holds the splits of the data set, or a data file",
            param="task.dataset",
        )
    first: Shelf | None = None
    for shelf in _shelves(root, task, described=described):
        if any(_name_of(shelf, task, role) is not None for role in ("train", "validation")):
            return shelf
        first = first or (shelf if shelf.splits else None)
    return first or Shelf(
        {}, "the data folder", tuple(itertools.islice(sorted(path.name for path in root.iterdir()), _MOST_SHOWN + 1))
    )


def _shelves(root: Path, task: TaskSpec, *, described: bool) -> Iterator[Shelf]:
    if task.config is not None:
        if has_configs(root):
            yield described_shelf(root, task.config)
        yield shelf_of(root / task.config)
    if described and has_configs(root):
        yield described_shelf(root, None)
    yield saved_shelf(root)
    yield _at(root, task)
    if not described and has_configs(root):
        yield described_shelf(root, None)
    yield from _within(root)


def _at(root: Path, task: TaskSpec) -> Shelf:
    """Return the splits of a folder, and those that the task names by a path: of a file, or of one without its ending."""
    shelf = shelf_of(root)
    splits = dict(shelf.splits)
    for name in (task.train_split, task.validation_split):
        path = root / name
        if data_suffix(path.name) is not None and path.is_file():
            splits[name] = (path,)
        elif path.parent != root and (files := shelf_of(path.parent).splits.get(path.name)) is not None:
            splits[name] = files
    return replace(shelf, splits=splits)


def _within(root: Path) -> Iterator[Shelf]:
    """Yield what lies in the only folder that has splits: the Hub's name of a configuration, or a folder too many."""
    found = [(path.name, shelf) for path in sorted(root.iterdir()) if path.is_dir() and (shelf := shelf_of(path)).splits]
    if len(found) == 1:
        name, shelf = found[0]
        yield replace(shelf, notes=(*shelf.notes, f"the splits were found in the folder {name[:64]}"))
    elif found:
        names = ", ".join(name[:64] for name, _ in found[:_MOST_SHOWN])
        raise NoSuchSplit(
            f"the data folder has several folders with splits: {names}. Name one of them in task.config", param="task.config"
        )


def _chosen(shelf: Shelf, task: TaskSpec, role: Role) -> Found:
    train, validation = _name_of(shelf, task, "train"), _name_of(shelf, task, "validation")
    share, said = task.validation_share, list(shelf.notes)
    only = next(iter(shelf.splits)) if len(shelf.splits) == 1 else None
    if train is None and task.train_split == "train" and only is not None and only.lower() not in OTHER_NAMES["validation"]:
        train = only
    if share is None and validation is None and task.validation_split == "validation" and train is not None and only == train:
        share = SHARE
    if share is not None and train is not None:
        why = "task.validation_share" if task.validation_share is not None else "there is no other split"
        if role == "validation":
            said.append(
                f"{share:.0%} of the rows of {train[:64]} are held out to validate on ({why}); the others are trained on"
            )
        return Found(train, shelf.files(train), share, tuple(said))
    name = train if role == "train" else validation
    if name is None:
        raise _missing(shelf, task, role)
    asked = task.train_split if role == "train" else task.validation_split
    if name != asked:
        said.append(f"{shelf.place} has no {asked} split; its {name[:64]} split is used as one")
    return Found(name, shelf.files(name), None, tuple(said))


def _name_of(shelf: Shelf, task: TaskSpec, role: Role) -> str | None:
    """Return the name that a shelf has for a split; None where it has none."""
    asked = task.train_split if role == "train" else task.validation_split
    if asked in shelf.splits:
        return asked
    spelled = {name.lower(): name for name in reversed(list(shelf.splits))}
    if asked.lower() in spelled:
        return spelled[asked.lower()]
    names = OTHER_NAMES[role] if asked == OTHER_NAMES[role][0] else ()
    return next((spelled[name] for name in names if name in spelled), None)


def _missing(shelf: Shelf, task: TaskSpec, role: Role) -> NoSuchSplit:
    asked, field = (
        (task.train_split, "task.train_split") if role == "train" else (task.validation_split, "task.validation_split")
    )
    start = f"{shelf.place} has no {asked} split"
    if shelf.splits:
        share = ", or hold a share of its training rows out by task.validation_share" if role == "validation" else ""
        named = field if asked not in ("train", "validation") else "task.dataset"  # what was given is at fault, not a default
        return NoSuchSplit(
            f"{start}; it has {_listed(list(shelf.splits))}. Name the one to take in {field}{share}", param=named
        )
    holds = f"it holds {_listed(shelf.others)}" if shelf.others else "it is empty"
    return NoSuchSplit(
        f"{start}; {holds}. Name the files by their splits ({asked}.parquet, {asked}.jsonl, {asked}.csv or the like), or give "
        "the folder that holds such",
        param="task.dataset",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:64] for name in names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")


def _revision_of(root: Path, task: TaskSpec) -> Path:
    """Return the folder of a revision in a repository of the Hub's cache; any other folder as it is.

    Raises:
        DatasetInvalid: The cache has no such revision, or the folder is none of the cache's.
    """
    snapshots = root / "snapshots"
    if not snapshots.is_dir():
        if task.revision is not None and not (root.parent.name == "snapshots"):
            raise DatasetInvalid(
                "a revision is of a data set of the Hub, and the folder is no repository of the Hub's cache; leave it out",
                param="task.revision",
            )
        return root
    wanted = task.revision or "main"
    check_split(wanted, "task.revision")
    commit = commit_named(root, wanted) or wanted
    if is_commit(commit) and (snapshots / commit).is_dir():
        return snapshots / commit
    there = sorted(path.name for path in snapshots.iterdir() if path.is_dir())
    if task.revision is None and len(there) == 1:
        return snapshots / there[0]
    raise DatasetInvalid(
        f"the folder of the Hub's cache has no revision {wanted[:64]}; it has {_listed(there) if there else 'none'}",
        param="task.revision",
    )


def info_beside(found: Found) -> bytes:
    """Return dataset_info.json as ``save_to_disk`` writes it beside the data; empty where there is none that can be read."""
    if not found.files:
        return b""
    path = found.files[0].parent / "dataset_info.json"
    try:
        return path.read_bytes() if path.stat().st_size <= _LARGEST_INFO else b""
    except OSError:
        return b""
