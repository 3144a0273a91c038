"""Models and data sets of the Hub, as folders of its cache. Torch-free.

A reference that is a Hub id is only ever looked up on the Hub or in its cache: never as a folder of the working directory, as
``datasets`` and ``transformers`` would. Without a network, or with ``HF_HUB_OFFLINE=1``, the cache alone answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, cast

from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.files.companions import FETCHED
from pruning_core.files.paths import DATA_SUFFIXES, is_local
from pruning_core.files.snapshots import resolve_snapshot
from pruning_core.machine.resources import raise_if_exhausted

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["model", "dataset"]

_README = "README.md"
_LARGEST_README = 4 * 2**20
_MOST_NAMES = 100_000
# What `datasets` reads without running code. Archives are left out: their members would have to be confined, too.
_DATA_SUFFIXES = (*DATA_SUFFIXES, ".txt", ".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Source:
    """What to fetch from the Hub.

    Attributes:
        kind: Whether it is a model or a data set.
        reference: Its id, ``org/name``.
        revision: A branch, a tag or a commit; None: the main branch.
        config: The configuration of a data set; None: its only one, or its default.
        most_bytes: The largest size to fetch; None: any.
    """

    kind: Kind
    reference: str
    revision: str | None = None
    config: str | None = None
    most_bytes: int | None = None


def model_folder(reference: str, revision: str | None, *, most_bytes: int | None = None) -> Path:
    """Return the local folder of a checkpoint. A Hub id is resolved from the Hub's cache, or downloaded; so is a folder of it.

    Raises:
        ModelUnreadable: The Hub does not know the model, or it is not in the cache and this machine is offline, or it is larger
            than ``most_bytes``; or a folder of the cache holds several snapshots and no main branch.
        OutOfMemory: Memory ran out during the download.
        StorageFull: The disk of the cache has no room for it.
    """
    if is_local(reference):
        return resolve_snapshot(Path(reference).expanduser())
    try:
        return _snapshot(Source("model", reference, revision, most_bytes=most_bytes), FETCHED)
    except _TooLarge as error:
        raise ModelUnreadable(f"model {reference!r} {error}", param="model") from None
    except Exception as error:  # network, authorisation and cache errors share no base class
        raise_if_exhausted(error, "the model was fetched from the Hub")
        raise ModelUnreadable(
            f"model {reference!r} could not be fetched from the Hub ({type(error).__name__}); check the name, or give a "
            "local folder",
            param="model",
        ) from error


def dataset_folder(reference: str, config: str | None, *, revision: str | None = None, most_bytes: int | None = None) -> Path:
    """Return the local folder of a data set of the Hub, with the files of one configuration.

    Raises:
        DatasetInvalid: The Hub does not know the data set, or it is not in the cache and this machine is offline; or its own
            description names files outside of it; or it is larger than ``most_bytes``.
        OutOfMemory: Memory ran out during the download.
        StorageFull: The disk of the cache has no room for it.
    """
    source = Source("dataset", reference, revision, config, most_bytes)
    try:
        described = _snapshot(source, (_README,))
        folder = _snapshot(source, (_README, *_patterns(described, config)))
        if folder != described:  # a commit came in between, with a README of its own
            described_configs(folder)
    except DatasetInvalid:
        raise
    except _TooLarge as error:
        raise DatasetInvalid(f"data set {reference!r} {error}", param="task.dataset") from None
    except Exception as error:  # as above
        raise_if_exhausted(error, "the data set was fetched from the Hub")
        raise DatasetInvalid(
            f"data set {reference!r} could not be loaded ({type(error).__name__}); without a network give a local folder",
            param="task.dataset",
        ) from error
    return folder


class _TooLarge(Exception):
    """It has more bytes than may be fetched; the message goes on from its name."""


def _snapshot(source: Source, patterns: Sequence[str]) -> Path:
    """Return the folder of a repository in the Hub's cache, with the files that match. Its size is asked first."""
    import huggingface_hub
    from huggingface_hub.errors import DryRunError

    fetch = partial(
        huggingface_hub.snapshot_download,
        source.reference,
        repo_type=source.kind,
        revision=source.revision,
        allow_patterns=list(patterns),
    )
    if huggingface_hub.constants.HF_HUB_OFFLINE:  # asked first, since the library prepares its connection before it asks
        return Path(fetch(local_files_only=True))
    if source.most_bytes is not None:
        size = 0
        with contextlib.suppress(DryRunError):  # the Hub is out of reach: the call below says so, or finds the cache complete
            size = sum(file.file_size or 0 for file in fetch(dry_run=True))
        if size > source.most_bytes:
            raise _TooLarge(f"has {size} bytes, more than the {source.most_bytes} that are fetched here; give a part of it")
    return Path(fetch())


def _patterns(folder: Path, config: str | None) -> tuple[str, ...]:
    """Return patterns of the files that a configuration needs: those that it names, or all data files."""
    everything = tuple(f"*{suffix}" for suffix in _DATA_SUFFIXES)
    found = [entry for entry in described_configs(folder) if config is None or entry.get("config_name") == config]
    if len(found) != 1 or "data_files" not in found[0]:
        return everything
    base = str(found[0].get("data_dir") or "").strip("/")
    patterns = [str(pattern) for pattern in _data_files(found[0]["data_files"])]
    return tuple(f"{base}/{pattern}" if base else pattern for pattern in patterns)


def described_configs(folder: Path) -> list[Mapping[str, Any]]:
    """Read the configurations that a data set's README.md describes, and check that they name no file outside of the folder.

    Raises:
        DatasetInvalid: One of them does.
    """
    path = folder / _README
    if not path.is_file():
        return []
    from huggingface_hub.repocard import metadata_load

    if path.stat().st_size > _LARGEST_README:
        raise DatasetInvalid(f"the data set's README.md has more than {_LARGEST_README} bytes", param="task.dataset")
    try:
        described = metadata_load(path)
    except Exception as error:  # YAML's errors, and those of text in another encoding
        raise_if_exhausted(error, "the data set's README.md was read")
        raise DatasetInvalid("the head of the data set's README.md is not valid YAML", param="task.dataset") from error
    given = cast("Mapping[str, Any]", described).get("configs") if isinstance(described, dict) else None
    configs = [entry for entry in cast("Sequence[object]", given if isinstance(given, list) else ()) if isinstance(entry, dict)]
    found = [cast("Mapping[str, Any]", entry) for entry in configs]
    for entry in found:
        for name in (*_data_files(entry.get("data_files")), *([entry["data_dir"]] if entry.get("data_dir") else [])):
            if not _stays_inside(name):
                raise DatasetInvalid(
                    "the data set's README.md names data files outside of the data set; name files within its folder alone",
                    param="task.dataset",
                )
    return found


def _data_files(value: object) -> Sequence[object]:
    """List the patterns in ``data_files``: a text, a list of texts, or of splits with their paths, or texts by split.

    Raises:
        DatasetInvalid: There are more than any honest data set has: YAML can name a list in itself.
    """
    found: list[object] = []
    left = [] if value is None else [value]
    for _ in range(_MOST_NAMES):
        if not left:
            return found
        match left.pop():
            case {"path": path}:
                left.append(path)
            case dict() as fields:
                left += reversed(list(cast("Mapping[str, object]", fields).values()))
            case list() as items:
                left += reversed(cast("list[object]", items))
            case name:
                found.append(name)
    raise DatasetInvalid(f"the data set's README.md has more than {_MOST_NAMES} entries of data files", param="task.dataset")


def _stays_inside(name: object) -> bool:
    """Return whether a pattern can only match within the folder: it is relative, goes up nowhere and is no address."""
    if not isinstance(name, str) or "\\" in name or "\0" in name or ":" in name or name.startswith("~"):
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
