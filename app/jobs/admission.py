"""Admission: checks that refuse a job before any work starts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from app.refusals import Refused
from app.settings import Settings
from app.uploads.records import UploadKind, is_upload_id
from app.uploads.service import Finder
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import PruningError
from pruning_core.files.paths import is_local
from pruning_core.spec.prune import PruneSpec

_REVISION = re.compile(r"[A-Za-z0-9][\w.\-]*(/[\w.\-]+)*", re.ASCII)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}(/[A-Za-z0-9][\w.\-]{0,95})?", re.ASCII)

_NO_ROOTS = "this server reads no folders by path"
_OUTSIDE = "the path, or a link in it, leads out of the folders that this server may read"
_REMEDY = (
    "its operator allows folders with COPPICE_ALLOWED_ROOTS (coppice serve --allow-root DIR); or upload the folder, and name "
    "the upload's id"
)

_MOST_MEMBERS = 10_000


def admit(spec: PruneSpec, settings: Settings, find_upload: Finder) -> PruneSpec:
    """Check a spec against this server and its files.

    Args:
        spec: The spec as the client sent it.
        settings: Settings, which name the folders that may be read.
        find_upload: Function that returns the folder of one of the client's uploads.

    Returns:
        The spec with paths resolved, so that the worker opens what was checked.

    Raises:
        Refused: The spec cannot be run here; the error names the field and says what to change.
    """
    model = _uploaded(spec.model, UploadKind.MODEL, "/model", find_upload) or _confined(spec.model, "/model", settings)
    given = spec.task.dataset
    dataset = _uploaded(given, UploadKind.DATASET, "/task/dataset", find_upload) or _confined(given, "/task/dataset", settings)
    if spec.revision is not None and (not _REVISION.fullmatch(spec.revision) or ".." in spec.revision):
        raise Refused("invalid_request", "must be a branch, a tag or a commit of the model's repository", "/revision")
    resolved = spec.model_copy(update={"model": model, "task": spec.task.model_copy(update={"dataset": dataset})})
    try:
        check_local_inputs(resolved)
    except PruningError as error:
        raise Refused(error.code, error.message, _pointer(error.param)) from error
    return resolved


def _uploaded(reference: str, kind: UploadKind, pointer: str, find: Finder) -> str | None:
    """Return the folder of an upload, or None where the reference is not the id of one."""
    if not is_upload_id(reference):
        return None
    try:
        return str(find(reference, kind))
    except Refused as error:
        raise Refused(error.code, error.message, pointer) from None


def _confined(reference: str, pointer: str, settings: Settings) -> str:
    """Resolve a path, links included, and insist that it lies under an allowed root; check the form of a Hub id."""
    if not is_local(reference):
        if not _HUB_ID.fullmatch(reference) or ".." in reference or "--" in reference:
            raise Refused("invalid_request", "must be a Hub id such as org/name, or an absolute path", pointer)
        return reference
    if "\0" in reference or not reference.startswith("/"):
        raise Refused("invalid_request", "a path must be absolute", pointer)
    try:
        path = Path(reference).resolve()
    except (OSError, RuntimeError, ValueError):
        raise Refused("path_not_allowed", "the path cannot be resolved", pointer) from None
    roots = [root.resolve() for root in settings.allowed_roots]
    # Links inside the folder count too: what they point to would be read, and copied into the bundle.
    for found in (path, *itertools.islice(_members(path), _MOST_MEMBERS)):
        if not any(found.resolve().is_relative_to(root) for root in roots):
            raise Refused("path_not_allowed", f"{_OUTSIDE if roots else _NO_ROOTS}; {_REMEDY}", pointer)
    return str(path)


def _members(folder: Path) -> Iterator[Path]:
    """List the paths that a checkpoint or a data set may be read from: in a folder and in its subfolders."""
    for child in folder.iterdir() if folder.is_dir() else ():
        yield child
        if child.is_dir() and not child.is_symlink():
            yield from child.iterdir()


def _pointer(param: str | None) -> str:
    return "" if param is None else "/" + param.replace(".", "/")
