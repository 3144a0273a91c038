"""The splits that a data set's README.md describes, as the Hub's libraries read them. Torch-free."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from pruning_core.data.formats.source import ReaderMissing
from pruning_core.data.shelves import Shelf, in_natural_order
from pruning_core.errors import DatasetInvalid
from pruning_core.files.hub import described_configs
from pruning_core.files.paths import data_suffix

_README = "README.md"
_LARGEST_HEAD = 2**22
_MOST_FILES = 100_000
_CONFIGS = re.compile(rb"^configs[ \t]*:", re.MULTILINE)
_MOST_SHOWN = 12
_GLOB = re.compile(r"[*?\[]")
_MOST_GLOBS = 100
_DEEPEST = 16


def has_configs(folder: Path) -> bool:
    """Return whether README.md seems to describe configurations. Its head is only parsed where it does."""
    try:
        with (folder / _README).open("rb") as file:
            head = file.read(_LARGEST_HEAD)
    except OSError:
        return False
    return head.startswith(b"---") and _CONFIGS.search(head) is not None


def described_shelf(folder: Path, config: str | None) -> Shelf:
    """List the splits of a configuration.

    Args:
        folder: Folder of the data set.
        config: Name of the configuration; None: the only one, or the default one.

    Returns:
        Its splits. An empty shelf where README.md names no files for it, or has no such configuration.

    Raises:
        DatasetInvalid: It has several and no default, or names files outside of the folder, or by too many patterns.
        ReaderMissing: The library that reads README.md is not installed.
    """
    try:
        configs = [entry for entry in described_configs(folder) if entry.get("data_files") is not None]
    except ImportError:
        raise ReaderMissing(
            "README.md describes the splits, and was not read, since huggingface_hub is not installed; install "
            "coppice-prune[prune], or name the files by their splits",
            param="task.dataset",
        ) from None
    chosen = _chosen(configs, config)
    if chosen is None:
        return Shelf({})
    base = str(chosen.get("data_dir") or "").strip("/")
    files = [(path.relative_to(folder).parts, path) for path in _files(folder)]
    splits: dict[str, Sequence[Path]] = {}
    for split, patterns in _patterns(chosen["data_files"]):
        wanted = {tuple(part for part in f"{base}/{pattern}".split("/") if part not in ("", ".")) for pattern in patterns}
        globs = [pattern for pattern in wanted if _GLOB.search("/".join(pattern))]
        if len(globs) > _MOST_GLOBS or any(len(pattern) > _DEEPEST for pattern in globs):
            raise DatasetInvalid(
                f"the data set's README.md names the files of the {split[:64]} split by more than {_MOST_GLOBS} patterns, or "
                f"by one of more than {_DEEPEST} folders; name fewer",
                param="task.dataset",
            )
        own = [path for parts, path in files if parts in wanted or any(_matches(parts, pattern) for pattern in globs)]
        if own:
            splits[split] = tuple(sorted(own, key=in_natural_order))
    return Shelf(splits, "the data set")


def _chosen(configs: Sequence[Mapping[str, Any]], config: str | None) -> Mapping[str, Any] | None:
    if config is not None:
        return next((entry for entry in configs if entry.get("config_name") == config), None)
    default = [entry for entry in configs if entry.get("default") is True or entry.get("config_name", "default") == "default"]
    if len(configs) > 1 and not default:
        names = ", ".join(str(entry.get("config_name"))[:64] for entry in configs[:_MOST_SHOWN])
        more = ", ..." if len(configs) > _MOST_SHOWN else ""
        raise DatasetInvalid(
            f"the data set has several configurations: {names}{more}. Name one in task.config", param="task.config"
        )
    return next(iter(default or configs), None)


def _patterns(data_files: object) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the patterns of each split: of a mapping, of a list of splits with paths, or of patterns alone, which are train."""
    match data_files:
        case dict():
            for split, patterns in cast("Mapping[object, object]", data_files).items():
                yield str(split), _texts(patterns)
        case list() if any(isinstance(entry, dict) for entry in cast("list[object]", data_files)):
            for entry in cast("list[object]", data_files):
                if isinstance(entry, dict):
                    fields = cast("Mapping[str, object]", entry)
                    yield str(fields.get("split", "train")), _texts(fields.get("path"))
        case _:
            yield "train", _texts(data_files)


def _texts(value: object) -> Sequence[str]:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the data files in a folder, at whatever depth."""
    count = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            count += 1
            if count > _MOST_FILES:
                raise DatasetInvalid(f"the data set has more than {_MOST_FILES} files", param="task.dataset")
            if data_suffix(name) is not None:
                yield Path(parent, name)


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether a path fits a pattern, in which ``**`` stands for any number of folders."""

    @cache
    def fits(i: int, j: int) -> bool:
        if j == len(pattern):
            return i == len(parts)
        if pattern[j] == "**":
            return fits(i, j + 1) or (i < len(parts) and fits(i + 1, j))
        return i < len(parts) and fnmatch.fnmatchcase(parts[i], pattern[j]) and fits(i + 1, j + 1)

    return fits(0, 0)
