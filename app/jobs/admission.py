"""Admission: checks that refuse a job before any work starts.

A reference to a model or a data set is exactly one of three: the id of an upload, an absolute path under an allowed root, or
the id of a repository of the Hub. Which one it is, its form alone says; nothing is looked up to find out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from fastapi.concurrency import run_in_threadpool

from app.inspection.inspector import Inspector
from app.inspection.records import UPLOAD_PREFIXES, UploadKind, pointer_of
from app.refusals import Refusals, Refused
from app.uploads.records import is_upload_id
from app.uploads.service import Finder
from pruning_core.checks.findings import Findings
from pruning_core.checks.method import check_request
from pruning_core.checks.prediction import Prediction
from pruning_core.errors import PruningError, each
from pruning_core.files.paths import is_local
from pruning_core.spec.data_places import data_places, with_columns, with_data
from pruning_core.spec.prune import PruneSpec

_REVISION = re.compile(r"[A-Za-z0-9][\w.\-]*(/[\w.\-]+)*", re.ASCII)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}(/[A-Za-z0-9][\w.\-]{0,95})?", re.ASCII)
_LARGEST_NUMBER = 2**53  # of rows; beyond it JSON's readers differ
_LONG_NUMBER = re.compile(r"\d{16}", re.ASCII)  # it has 16 digits
_ENDS_NO_HUB_ID = ("-", ".", ".git")
# Names by which the data sets' library reads whatever files lie in the working directory; a test holds them against its own.
PACKAGED_READERS = frozenset(
    [
        *("arrow", "audiofolder", "cache", "conll", "csv", "eval", "fasta", "fastq", "folder", "genbank"),
        *("generator", "harbor", "hdf5", "iceberg", "imagefolder", "json", "lance", "meshfolder", "mmcif", "niftifolder"),
        *("pandas", "parquet", "pdb", "pdffolder", "spark", "sql", "text", "tsfile", "videofolder", "vortex"),
        *("webdataset", "xml"),
    ]
)

_MODEL = "model"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A spec that can run here.

    Attributes:
        spec: The spec with paths resolved and columns named, so that the worker opens what was checked.
        findings: What was found in the data, and what was not looked at.
        prediction: What is predicted of the job; None where the model is on the Hub, or nobody asked.
    """

    spec: PruneSpec
    findings: Findings
    prediction: Prediction | None


async def admit(spec: PruneSpec, inspector: Inspector, find_upload: Finder, *, owner: str, predicts: bool = False) -> Admitted:
    """Check a spec against this server and its files.

    Args:
        spec: The spec as the client sent it.
        inspector: What looks at files.
        find_upload: Function that returns the folder of one of the client's uploads.
        owner: Who asks.
        predicts: Whether the job is predicted.

    Raises:
        Refused: The spec cannot be run here; the error names the field and says what to change.
        Busy, QuotaExceeded: Too many files are being read.
    """
    refusals = Refusals()
    with refusals.gathered():
        if _LONG_NUMBER.search(spec.model_dump_json()):  # hardly any spec has one: only such are looked through
            _check_numbers(spec.model_dump(), "")
    uploaded: set[str] = set()
    places = data_places(spec)
    folders = {_MODEL: spec.model} | {own.param: own.reference for own in places}
    here = {own.param for own in places if own.here}
    of_models = {_MODEL, *(own.param for own in places if own.of_model)}
    for field, reference in folders.items():
        kind, pointer = UploadKind.MODEL if field in of_models else UploadKind.DATASET, pointer_of(field)
        with refusals.gathered():
            if is_upload_id(reference):
                folders[field] = await run_in_threadpool(_uploaded, reference, kind, pointer, find_upload)
                uploaded.add(field)
            elif field in here and not reference.startswith("/"):
                raise Refused("invalid_request", "must be an absolute path, or the id of an upload", pointer)
            elif not is_local(reference):
                _check_hub_id(reference, kind, pointer)
            elif not reference.startswith("/"):
                raise Refused("invalid_request", "a path must be absolute", pointer)
    revisions = [(spec.revision, "model", "revision"), *((own.revision, "data set", own.revision_param) for own in places)]
    for revision, whose, field in revisions:
        with refusals.gathered():
            if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
                message = f"must be a branch, a tag or a commit of the {whose}'s repository"
                raise Refused("invalid_request", message, pointer_of(field))
    refusals.end()
    located = with_data(spec, folders).model_copy(update={"model": folders[_MODEL]})
    if not any(map(is_local, folders.values())):
        _check_request(located)
        return Admitted(located, Findings(not_looked_at=("the model and the data set, which are on the Hub",)), None)
    found = await inspector.check(located, frozenset(uploaded), predicts=predicts, owner=owner)
    admitted = with_data(spec, found.data).model_copy(update={"model": found.model})
    return Admitted(with_columns(admitted, found.columns, found.also_columns), found.findings, found.prediction)


def _check_numbers(value: object, pointer: str) -> None:
    """Refuse whole numbers that the libraries of a job could not hold. Jobs of before may have them, so specs still can."""
    if isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            _check_numbers(inner, f"{pointer}/{name}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(cast("Sequence[object]", value)):
            _check_numbers(inner, f"{pointer}/{place}")
    elif isinstance(value, int) and value > _LARGEST_NUMBER:
        raise Refused("invalid_request", "must be at most 2 to the power of 53", pointer)


def _uploaded(reference: str, kind: UploadKind, pointer: str, find: Finder) -> str:
    try:
        return str(find(reference, kind))
    except Refused as error:
        raise Refused(error.code, error.message, pointer) from None


def _check_hub_id(reference: str, kind: UploadKind, pointer: str) -> None:
    if reference.startswith(UPLOAD_PREFIXES):
        raise Refused("invalid_request", "is no whole id of an upload: one has mdl_ or dst_ and 64 hexadecimal digits", pointer)
    if not _HUB_ID.fullmatch(reference) or ".." in reference or "--" in reference or reference.endswith(_ENDS_NO_HUB_ID):
        raise Refused("invalid_request", "must be a Hub id such as org/name, or an absolute path", pointer)
    if kind == UploadKind.DATASET and reference.lower() in PACKAGED_READERS:
        raise Refused(
            "invalid_request",
            f"{reference} is a format and no data set; name one of the Hub as org/name, or upload one",
            pointer,
        )


def _check_request(spec: PruneSpec) -> None:
    """Check what needs no file."""
    try:
        check_request(spec)
    except PruningError as error:
        found = [Refused(one.code, one.message, pointer_of(one.param)) for one in each(error)]
        raise Refused.of_all(found) from error
