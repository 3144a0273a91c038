"""Places on this host that options name: inputs made absolute, and outputs that can be written."""

from __future__ import annotations

import re
from pathlib import Path

from coppice.console import ExitCode, fail
from coppice.outputs import OutputUnusable, check_file, check_folder
from pruning_core.files.paths import data_suffix

_HUB_ID = re.compile(r"[\w.\-]+/[\w.\-]+(@.*)?", re.ASCII)


def require_free(out: Path, option: str = "--out", *, may_hold_files: bool = False) -> None:
    """Refuse an output folder that is not empty or cannot be written, before any work is done for it."""
    try:
        check_folder(out, option, may_hold_files=may_hold_files)
    except OutputUnusable as error:
        fail(str(error), ExitCode.BAD_INPUT)


def require_writable(file: Path, option: str = "--out") -> None:
    """Refuse an output file that cannot be written, before any work is done for it."""
    try:
        check_file(file, option)
    except OutputUnusable as error:
        fail(str(error), ExitCode.BAD_INPUT)


def absolute(path: str) -> str:
    """Make a path absolute."""
    return str(Path(path).expanduser().absolute())


def local_data(reference: str) -> str:
    """Make the path of data absolute. What does not exist and looks like a Hub id is one, unless it is named as a data file."""
    named = is_path(reference) or Path(reference).exists() or data_suffix(Path(reference).name) is not None
    is_hub_id = not named and _HUB_ID.fullmatch(reference)
    return reference if is_hub_id else absolute(reference)


def is_path(reference: str) -> bool:
    """Return whether a reference is a path, and not a Hub id."""
    return reference.startswith(("/", "./", "../", "~"))


def local_model(reference: str) -> str:
    """Make the path of a model absolute. A folder that exists is a path, as people expect; anything else may be a Hub id."""
    return absolute(reference) if is_path(reference) or Path(reference).is_dir() else reference
