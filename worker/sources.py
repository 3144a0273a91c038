"""What a job was made of, for its provenance: uploads, Hub ids and folders, with the digests that the supervisor knows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.jobs.records import Claim
from app.settings import Settings
from app.uploads.records import is_upload_id
from pruning_core.files.paths import is_local
from pruning_core.files.provenance import Resource, shown_name
from pruning_core.spec.data_places import TASK_DATA, DataPlace, data_places
from worker.launching import hub_cache

# A folder with more is named without digests: its job may be short, and to hash it takes about a second a gigabyte.
_MOST_FILES = 1000
_MOST_BYTES = 64 * 2**30
_HIDDEN = "."
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


def sources_of(claim: Claim, settings: Settings, *, since: float) -> tuple[Resource, ...]:
    """Describe the model and the data of a job.

    Args:
        claim: The claim of the job.
        settings: Settings, which name the folders that may be read.
        since: When the job began, in seconds since the epoch. What was changed later may not be what the job has read, and
            gets no digest.
    """
    roots = [root.resolve() for root in settings.allowed_roots]
    spec, cache = claim.spec, hub_cache(settings, claim.owner)
    return (
        *_described("model", spec.model, spec.revision, cache=cache, roots=roots, since=since),
        *(
            found
            for own in data_places(spec)
            for found in _named(own, _described("dataset", own.reference, own.revision, cache=cache, roots=roots, since=since))
        ),
    )


def _named(own: DataPlace, found: Iterator[Resource]) -> Iterator[Resource]:
    """Yield the resources of the task's data as they are, those of further sets and of the ledger under names of their own."""
    for resource in found:
        if own.param == TASK_DATA:
            yield resource
        else:
            yield resource.model_copy(update={"name": f"{own.param.removesuffix('.data')}/{resource.name}"})


def _described(
    role: str, reference: str, revision: str | None, *, cache: Path, roots: Sequence[Path], since: float
) -> Iterator[Resource]:
    name = shown_name(reference)
    if is_upload_id(name):
        # The id is a hash of the content already: of a line for each file, with its path, size and sha256.
        yield Resource(name=role, uri=f"urn:coppice:upload:{name}", digest={"sha256": name.rpartition("_")[2]})
    elif is_local(reference):
        yield from _of_folder(role, Path(reference), roots=roots, since=since)
    else:
        yield _of_hub(role, reference, revision, cache)


def _of_hub(role: str, reference: str, revision: str | None, cache: Path) -> Resource:
    """Name a Hub repository, with the commit that was fetched for the job."""
    commit = _commit(role, reference, revision, cache)
    version = commit or revision
    return Resource(
        name=role,
        uri=f"hf://{'' if role == 'model' else 'datasets/'}{reference}" + (f"@{version}" if version else ""),
        digest=None if commit is None else {"gitCommit": commit},
    )


def _commit(role: str, reference: str, revision: str | None, cache: Path) -> str | None:
    """Return the commit that a branch or a tag stood for when it was fetched; None where the cache does not say."""
    from huggingface_hub.file_download import repo_folder_name

    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    reference_file = cache / repo_folder_name(repo_id=reference, repo_type=role) / "refs" / (revision or "main")
    try:
        commit = reference_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _of_folder(role: str, folder: Path, *, roots: Sequence[Path], since: float) -> Iterator[Resource]:
    uri = f"urn:coppice:path:{folder.name}"
    try:
        files = _files(folder, roots, since)
    except _NotHashedError as error:
        yield Resource(name=role, uri=uri, annotations={"digests": f"none: {error}"})
        return
    for path in files:
        relative = path.relative_to(folder).as_posix() if path != folder else folder.name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            yield Resource(name=f"{role}/{relative}", uri=uri, annotations={"digests": "none: the file cannot be read"})
        else:
            yield Resource(name=f"{role}/{relative}", uri=uri, digest={"sha256": digest})


class _NotHashedError(Exception):
    """A folder gets no digests; the message says why."""


def _files(folder: Path, roots: Sequence[Path], since: float) -> list[Path]:
    """List the files of a folder that may be hashed, without hidden ones."""
    files: list[Path] = []
    size = 0
    try:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if not path.is_file() or any(part.startswith(_HIDDEN) for part in relative.parts):
                continue
            if not any(path.resolve().is_relative_to(root) for root in roots):
                raise _NotHashedError("a file lies outside of the folders that this service may read")
            state = path.stat()
            if max(state.st_ctime, state.st_mtime) >= since:
                raise _NotHashedError("a file was changed while the job ran")
            size += state.st_size
            if len(files) >= _MOST_FILES or size > _MOST_BYTES:
                raise _NotHashedError("the folder is too large")
            files.append(path)
    except OSError:
        raise _NotHashedError("the folder cannot be read") from None
    return files
