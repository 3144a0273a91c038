"""What a folder holds by the names of splits: files, shards, folders of files, folders of ``save_to_disk``. Torch-free."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pruning_core.errors import DatasetInvalid
from pruning_core.files.bounded_json import JsonRefused, read_json
from pruning_core.files.paths import DATA_SUFFIXES, data_suffix

_MOST_FILES = 100_000
_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{1,9})-of-(?P<count>\d{1,9})(?:-[0-9a-f]+)?", re.ASCII)
_DIGITS = re.compile(r"(\d+)", re.ASCII)
_STATE = "state.json"
_LARGEST_STATE = 2**24


@dataclass(frozen=True, slots=True)
class Shelf:
    """Splits side by side.

    Attributes:
        splits: Files of each, in their order.
        place: What to call it in a message.
        others: Names of what lies there and is no split.
        notes: What was guessed.
        faults: What is wrong with a split, which counts where the split is chosen.
    """

    splits: Mapping[str, Sequence[Path]]
    place: str = "the data folder"
    others: Sequence[str] = ()
    notes: tuple[str, ...] = ()
    faults: Mapping[str, DatasetInvalid] = field(default_factory=dict[str, DatasetInvalid])

    def files(self, split: str) -> Sequence[Path]:
        """Return the files of a split.

        Raises:
            DatasetInvalid: They are not whole.
        """
        if split in self.faults:
            raise self.faults[split]
        check_shards(self.splits[split])
        return self.splits[split]


def shelf_of(folder: Path) -> Shelf:
    """List the splits of a folder: what lies in it, in its folder ``data``, and in folders that are named as splits.

    Raises:
        DatasetInvalid: The folder cannot be read.
    """
    faults: dict[str, DatasetInvalid] = {}
    found: dict[str, list[Sequence[Path]]] = defaultdict(list)
    entries = _entries(folder)
    for name, files in _by_name(entries):
        found[name].append(files)
    for path in entries:
        if not path.is_dir():
            continue
        name = path.name.removesuffix(data_suffix(path.name) or "")  # Spark writes a folder train.parquet
        try:
            saved = saved_shelf(path)
        except DatasetInvalid as fault:
            faults[name] = fault
            found[name].append((path,))
            continue
        if path.name == "data" and not saved.splits:
            for split, files in _by_name(_entries(path)):
                found[split].append(files)
        elif files := next(iter(saved.splits.values()), ()) or _in_order(path):
            found[name].append(files)
    notes = tuple(
        f"the {name[:64]} split lies there in several forms; {ways[0][0].name[:128]} was read"
        for name, ways in found.items()
        if len(ways) > 1
    )
    return Shelf({name: ways[0] for name, ways in found.items()}, notes=notes, faults=faults)


def saved_shelf(folder: Path) -> Shelf:
    """Return the split of a folder that ``Dataset.save_to_disk`` has written; an empty shelf for any other folder.

    Raises:
        DatasetInvalid: Its list of files cannot be read, or one of them is missing.
    """
    path = folder / _STATE
    if not path.is_file():
        return Shelf({})
    try:
        state = read_json(path, most_bytes=_LARGEST_STATE)
    except (OSError, JsonRefused) as error:
        raise DatasetInvalid("state.json of the saved data set cannot be read; save it again", param="task.dataset") from error
    fields = cast("Mapping[str, Any]", state) if isinstance(state, dict) else {}
    listed: object = fields.get("_data_files")
    if not isinstance(listed, list) or not listed:
        return Shelf({})
    names = [
        cast("Mapping[str, Any]", entry).get("filename") if isinstance(entry, dict) else None
        for entry in cast("list[object]", listed)
    ]
    files: list[Path] = []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or data_suffix(name) is None:
            raise DatasetInvalid(
                "state.json of the saved data set names no files of its folder; save it again", param="task.dataset"
            )
        if not (folder / name).is_file():
            raise DatasetInvalid(f"{name[:128]} of the saved data set is missing; copy it whole", param="task.dataset")
        files.append(folder / name)
    split = fields.get("_split")
    return Shelf({split if isinstance(split, str) and split else folder.name: tuple(files)})


def check_shards(files: Sequence[Path]) -> None:
    """Check that the shards that files say they are, are all there, and once.

    Raises:
        DatasetInvalid: One is missing, or there is another set of the same split beside it.
    """
    parts = [(match["split"], int(match["number"]), int(match["count"])) for path in files if (match := _shard(path))]
    sets = {(split, count) for split, _, count in parts}
    for split, count in sorted(sets):
        numbers = sorted(number for own, number, whole in parts if (own, whole) == (split, count))
        there = set(numbers)
        missing = next((number for number in range(min(count, _MOST_FILES + 1)) if number not in there), None)
        if missing is not None:
            raise DatasetInvalid(
                f"the {split[:64]} split has {count} files, and {split[:64]}-{missing:05}-of-{count:05} is missing; "
                "copy it whole",
                param="task.dataset",
            )
        if numbers != list(range(count)):
            raise DatasetInvalid(
                f"the {split[:64]} split has files with the same number, such as two of "
                f"{split[:64]}-00000-of-{count:05}; leave those of one version",
                param="task.dataset",
            )
    if len({split for split, _ in sets}) < len(sets):
        raise DatasetInvalid(
            "a split lies there as two sets of files, with another number of them each; leave one", param="task.dataset"
        )


def in_natural_order(path: Path) -> tuple[object, ...]:
    """Return a key by which part-2 comes before part-10."""
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _DIGITS.split(path.as_posix()))


def _by_name(files: Sequence[Path]) -> Iterator[tuple[str, Sequence[Path]]]:
    """Yield the splits that files are named after, those of the preferred form first."""
    found: dict[tuple[int, str], list[Path]] = defaultdict(list)
    for path in filter(_is_data, files):
        match, suffix = _shard(path), data_suffix(path.name)
        assert suffix is not None, "they are data files"
        name = match["split"] if match else path.name[: -len(suffix)]
        found[DATA_SUFFIXES.index(suffix) + len(DATA_SUFFIXES) * bool(match), name].append(path)
    for (_, name), own in sorted(found.items()):
        yield name, tuple(sorted(own, key=in_natural_order))


def _in_order(folder: Path) -> Sequence[Path]:
    """Return the data files of a folder, those of its most preferred form alone."""
    files = list(filter(_is_data, _entries(folder)))
    if not files:
        return ()
    preferred = min((DATA_SUFFIXES.index(cast("str", data_suffix(path.name))) for path in files), default=0)
    own = sorted((path for path in files if data_suffix(path.name) == DATA_SUFFIXES[preferred]), key=in_natural_order)
    return tuple(own)


def _is_data(path: Path) -> bool:
    return data_suffix(path.name) is not None and path.is_file()


def _shard(path: Path) -> re.Match[str] | None:
    suffix = data_suffix(path.name)
    return None if suffix is None else _SHARD.fullmatch(path.name[: -len(suffix)])


def _entries(folder: Path) -> list[Path]:
    """List the data files and the folders of a folder, sorted and without hidden ones; empty where it is none.

    Raises:
        DatasetInvalid: It cannot be read, or holds more of them than are looked through. Other files do not count: images may
            lie there by the million.
    """
    names: list[str] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith(".") or not (data_suffix(entry.name) or entry.is_dir()):
                    continue
                names.append(entry.name)
                if len(names) > _MOST_FILES:
                    raise DatasetInvalid(
                        f"a folder of the data has more than {_MOST_FILES} data files and folders; give one with fewer",
                        param="task.dataset",
                    )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        raise DatasetInvalid("a folder of the data cannot be read by this machine", param="task.dataset") from None
    return [folder / name for name in sorted(names)]
