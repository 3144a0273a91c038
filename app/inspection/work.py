"""The inspections themselves, as a limited child does them. No torch, no settings, no database."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, assert_never

from app.inspection.confinement import keep_to
from app.inspection.content import seal, unpack
from app.inspection.protocol import (
    QUESTIONS,
    CheckModel,
    CheckSpec,
    Failure,
    Fault,
    Refusal,
    Resolved,
    Seal,
    Sound,
    Unpack,
    Unpacked,
)
from app.inspection.records import pointer_of
from app.inspection.references import resolve
from app.refusals import NoRoom, Refusals, Refused, RequestError
from pruning_core.checks.prediction import predict
from pruning_core.checks.request import check_local_inputs, check_upload, model_at
from pruning_core.errors import PruningError, each
from pruning_core.files.paths import is_local
from pruning_core.machine.resources import disk_is_full, memory_is_full
from pruning_core.spec.data_places import data_places, with_data

_CHUNK = 1 << 16


class _Answer(Protocol):
    def model_dump_json(self) -> str: ...


def answer_to(connection: socket.socket) -> None:
    """Read a question to its end, answer it, and send the answer."""
    asked = bytearray()
    while chunk := connection.recv(_CHUNK):
        asked += chunk
    connection.sendall(inspect(bytes(asked), keep_to).model_dump_json().encode())


def inspect(asked: bytes, confine: Callable[[Sequence[Path], Sequence[Path]], None] | None = None) -> _Answer:
    """Answer a question. Every error becomes an answer, those of a stranger's making and those of ours.

    Args:
        asked: The question.
        confine: Function that keeps this process to the files that it may read, and to those that it may write, for ever.
    """
    try:
        question = QUESTIONS.validate_json(asked)
        if confine is not None:
            confine(*_needed(question))
        return _inspected(question)
    except Exception as error:
        return _told(error)


def _told(error: Exception) -> _Answer:
    if isinstance(error, NoRoom) or disk_is_full(error):
        return Failure.of("disk")
    if isinstance(error, RecursionError) or memory_is_full(error):
        return Failure.of("exhausted")
    if isinstance(error, Refused):
        return Refusal.of(*(Fault.of(one.code, one.message, one.pointer) for one in (error, *error.others)))
    if isinstance(error, RequestError):
        return Refusal.of(Fault.of(error.code, error.message, error.pointer))
    if isinstance(error, PruningError):
        return Refusal.of(*(Fault.of(one.code, one.message, pointer_of(one.param)) for one in each(error)))
    return Failure.of("unexpected", "".join(traceback.format_exception(error)))


def _needed(question: Unpack | Seal | CheckModel | CheckSpec) -> tuple[Sequence[Path], Sequence[Path]]:
    """Return what a question needs to read, and to write."""
    match question:
        case Unpack():
            return [question.archive], [question.folder]
        case Seal() | CheckModel():
            return [question.folder], []
        case CheckSpec():
            named = {"model": question.spec.model} | {own.param: own.reference for own in data_places(question.spec)}
            uploads = [Path(folder) for field, folder in named.items() if field in question.uploaded]
            others = any(is_local(folder) and field not in question.uploaded for field, folder in named.items())
            return [*uploads, *(question.roots if others else ())], []
        case _:
            assert_never(question)


def _inspected(question: Unpack | Seal | CheckModel | CheckSpec) -> _Answer:
    match question:
        case Unpack():
            with question.archive.open("rb") as archive:
                files = unpack(
                    archive,
                    question.kind,
                    question.folder,
                    max_bytes=question.max_bytes,
                    min_free_bytes=question.min_free_bytes,
                )
            return Unpacked(files=files)
        case Seal():
            seal(question.folder, question.kind, question.files)
            return Sound()
        case CheckModel():
            check_upload(question.folder)
            return Sound()
        case CheckSpec():
            return _resolved(question)
        case _:
            assert_never(question)


def _resolved(question: CheckSpec) -> Resolved:
    spec = question.spec
    model, refusals = spec.model, Refusals()
    data = {own.param: own.reference for own in data_places(spec)}
    if is_local(model) and "model" not in question.uploaded:
        with refusals.gathered():
            # With all that lies in it, the snapshots of a folder of the Hub's cache and the blobs that they link to included.
            model = str(model_at(str(resolve(model, "/model", question.roots, closed=question.closed))))
    for param, reference in data.items():
        if is_local(reference) and param not in question.uploaded:
            with refusals.gathered():
                data[param] = str(resolve(reference, pointer_of(param), question.roots, closed=question.closed))
    refusals.end()
    spec = with_data(spec, data).model_copy(update={"model": model})
    checked = check_local_inputs(spec)
    return Resolved(
        model=model,
        data=data,
        columns=checked.spec.task.columns,
        also_columns=tuple(own.columns for own in checked.spec.evaluation.also),
        findings=checked.findings,
        prediction=predict(spec) if question.predicts else None,
    )
