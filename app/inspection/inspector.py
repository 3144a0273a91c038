"""Inspections as the API asks for them: each in a process of its own, a few at a time, and every end of one has a meaning."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import structlog
from pydantic import ValidationError

from app.inspection.memory import Memory, imprint_of, key_of, now_ns
from app.inspection.process import Zygote
from app.inspection.protocol import (
    ANSWERS,
    MOST_ANSWER_BYTES,
    CheckModel,
    CheckSpec,
    Failure,
    Refusal,
    Resolved,
    Seal,
    Sound,
    Unpack,
    Unpacked,
)
from app.inspection.records import Limits, UploadedFile, UploadKind
from app.inspection.turns import Turns
from app.inspection.zygote import FATE
from app.refusals import Busy, NoRoom, Refused
from app.settings import Settings
from pruning_core.checks.findings import Findings
from pruning_core.checks.prediction import Prediction
from pruning_core.spec.prune import Columns, PruneSpec

_log = structlog.get_logger(__name__)

_CHUNK = 1 << 16
_TRIES = 2  # a second one for an inspection whose zygote has died under it
_GRACE_S = 10  # the zygote kills children that are late; this long afterwards the API stops waiting for it
_UNPACKING_BYTES = 96 * 2**20  # of memory: a chunk, gzip's window, and the names of the files
_CHECK_CPU_S = 15
_CHECK_WALL_S = 60
_UNPACK_CPU_S = 30
_UNPACK_WALL_S = 120
_SLOWEST_BYTES_PER_S = 10 * 2**20  # of archive: unpacked, hashed and written, on a host of ordinary load
_TOO_MUCH = "need more memory or time to read than any valid ones do"
_UNEXPECTED = "cannot be read: something in them is not as in any valid ones"


@dataclass(frozen=True, slots=True)
class Inspected:
    """A spec that fits this server.

    Attributes:
        model: Where its model is.
        data: Where its data sets are, by the fields of `pruning_core.spec.data_places`.
        columns: The columns that it reads, those that were guessed included.
        also_columns: The columns of each further evaluation set; None where nothing was looked at.
        findings: What was found in the data, and what was not looked at.
        prediction: What is predicted of the job; None where that was not asked.
    """

    model: str
    data: Mapping[str, str]
    columns: Columns
    also_columns: Sequence[Columns | None]
    findings: Findings
    prediction: Prediction | None


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is inspected, for what is said of it: code and pointer of a refusal, and a noun."""

    code: str
    noun: str
    pointer: str | None = None


class _Lost(Exception):
    """The process from which the child was forked has died."""


class Inspector:
    """Reads strangers' files, in other processes.

    Args:
        settings: How many at a time, and with how much memory.
        zygote: The process that the others are forked from.
    """

    def __init__(self, settings: Settings, zygote: Zygote) -> None:
        self._settings = settings
        self._zygote = zygote
        per_owner = min(settings.inspections_per_owner, settings.inspections)
        # Unpacking may take minutes. What is only looked at does not wait for it.
        self._unpacking = Turns(settings.inspections, per_owner, settings.inspection_wait_s)
        self._checking = Turns(settings.inspections, per_owner, settings.inspection_wait_s)
        self._memory = Memory()

    async def unpack(
        self, archive: Path, kind: UploadKind, folder: Path, *, largest: Callable[[], int], owner: str
    ) -> tuple[UploadedFile, ...]:
        """Unpack an upload, and check the names, kinds and sizes of what it holds.

        Args:
            archive: A tar file.
            kind: What it should hold.
            folder: Where its files go; made anew.
            largest: Function that returns the bytes that they may have together. Asked when it is the archive's turn.
            owner: Whose it is.

        Raises:
            Refused: It holds nothing that could be used.
            Busy, QuotaExceeded: Too much is being read.
            NoRoom: The disk is full.
        """
        subject = _Subject("upload_invalid", "files of the archive")
        async with self._unpacking.turn(owner):
            max_bytes = await asyncio.to_thread(largest)
            cpu_s = _UNPACK_CPU_S + archive.stat().st_size // _SLOWEST_BYTES_PER_S
            limits = Limits(_UNPACKING_BYTES, cpu_s, _UNPACK_WALL_S + 4 * cpu_s, max_bytes)
            question = Unpack(
                archive=archive,
                kind=kind,
                folder=folder,
                max_bytes=max_bytes,
                min_free_bytes=self._settings.min_free_bytes,
            )
            answer = await self._ask(question, limits, subject)
            if not isinstance(answer, Unpacked):
                raise _unfit(answer, subject)
            # It has read hostile bytes. What it says of the content decides under which id all tenants find it.
            cpu_s = _UNPACK_CPU_S + sum(file.size for file in answer.files) // _SLOWEST_BYTES_PER_S
            limits = Limits(_UNPACKING_BYTES, cpu_s, _UNPACK_WALL_S + 4 * cpu_s)
            sealed = await self._ask(Seal(kind=kind, folder=folder, files=answer.files), limits, subject)
        if not isinstance(sealed, Sound):
            raise _unfit(sealed, subject)
        return answer.files

    async def check_model(self, folder: Path, *, owner: str) -> None:
        """Check an unpacked model, whatever will be asked of it. Raises as `unpack`."""
        subject = _Subject("model_unreadable", "files of the model")
        async with self._checking.turn(owner):
            answer = await self._ask(CheckModel(folder=folder), self._check_limits(), subject)
        if not isinstance(answer, Sound):
            raise _unfit(answer, subject)

    async def check(self, spec: PruneSpec, uploaded: frozenset[str], *, predicts: bool, owner: str) -> Inspected:
        """Resolve the paths of a spec, and check what lies there.

        Args:
            spec: The spec, with the folders of uploads in place of their ids.
            uploaded: Which of its references are such folders.
            predicts: Whether the job is predicted.
            owner: Who asks.

        Raises:
            Refused: The spec does not fit the files, or they cannot be used.
            Busy, QuotaExceeded: Too much is being read.
        """
        roots = tuple(root.absolute() for root in self._settings.allowed_roots)
        # No check reads the seed, and none can, as it is not asked with it: jobs that differ in nothing else share an answer.
        spec = spec.model_copy(update={"seed": 0})
        question = CheckSpec(spec=spec, roots=roots, closed=self._settings.closed_folders, uploaded=uploaded, predicts=predicts)
        key = key_of(question, owner)
        answer = await self._remembered(key, question) if self._memory.knows(key) else None
        if answer is None:
            async with self._checking.turn(owner):
                answer = await self._looked_at(key, question)
        return Inspected(answer.model, answer.data, answer.columns, answer.also_columns, answer.findings, answer.prediction)

    async def _remembered(self, key: bytes, question: CheckSpec) -> Resolved | None:
        return self._memory.answer(key, await asyncio.to_thread(imprint_of, question))

    async def _looked_at(self, key: bytes, question: CheckSpec) -> Resolved:
        """Answer a question whose turn it is, and remember the answer where the files have stayed the same meanwhile."""
        since_ns = now_ns()
        before = await asyncio.to_thread(imprint_of, question)
        answer = self._memory.answer(key, before)  # found for another request while this one waited for its turn
        if answer is not None:
            return answer
        subject = _Subject("model_unreadable", "files of the model or of the data set", "")
        answer = await self._ask(question, self._check_limits(), subject)
        if not isinstance(answer, Resolved):
            raise _unfit(answer, subject)
        if before is not None:
            after = await asyncio.to_thread(imprint_of, question)
            self._memory.keep(key, answer, before, after, since_ns=since_ns)
        return answer

    def _check_limits(self) -> Limits:
        return Limits(self._settings.inspection_memory_bytes, _CHECK_CPU_S, _CHECK_WALL_S)

    async def _ask(
        self, question: Unpack | Seal | CheckModel | CheckSpec, limits: Limits, subject: _Subject
    ) -> Unpacked | Sound | Resolved:
        answer = await self._answer(question, limits)
        match answer:
            case Unpacked() | Sound() | Resolved():
                return answer
            case Refusal():
                raise Refused.of_all([Refused(fault.code, fault.message, fault.pointer) for fault in answer.faults])
            case Failure(why="exhausted"):
                _log.warning("inspection.exhausted", ask=question.ask)
                raise Refused(subject.code, f"the {subject.noun} {_TOO_MUCH}", subject.pointer)
            case Failure(why="disk"):
                raise NoRoom.on_disk()
            case Failure():
                _log.error("inspection.failed", ask=question.ask, details=answer.details)
                raise Refused(subject.code, f"the {subject.noun} {_UNEXPECTED}", subject.pointer)
            case _:
                assert_never(answer)

    async def _answer(
        self, question: Unpack | Seal | CheckModel | CheckSpec, limits: Limits
    ) -> Unpacked | Sound | Resolved | Refusal | Failure:
        asked = question.model_dump_json().encode()
        for left in reversed(range(_TRIES)):
            if isinstance(question, Unpack):
                await asyncio.to_thread(_make_empty, question.folder)
            try:
                return await self._exchange(asked, limits)
            except (_Lost, OSError) as error:
                _log.error("inspection.lost", ask=question.ask, error=str(error), tries_left=left)
        raise Busy("busy", "the server cannot read files at the moment; try again shortly")

    async def _exchange(self, asked: bytes, limits: Limits) -> Unpacked | Sound | Resolved | Refusal | Failure:
        """Have a child forked, ask it, and wait for its end."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        fate, their_fate = os.pipe()
        try:
            try:
                self._zygote.order(limits, theirs, their_fate)
            finally:
                theirs.close()
                os.close(their_fate)
            ours.setblocking(False)
            try:
                async with asyncio.timeout(limits.wall_s + _GRACE_S):
                    return _understood(await _conversation(loop, ours, asked), await _exit_code(loop, fate))
            except TimeoutError:
                return Failure.of("exhausted")
        finally:
            ours.close()
            os.close(fate)


def _unfit(answer: object, subject: _Subject) -> Refused:
    """Return the error for an answer to another question, which no sound child gives."""
    _log.error("inspection.garbled", answer=type(answer).__name__)
    return Refused(subject.code, f"the {subject.noun} {_UNEXPECTED}", subject.pointer)


async def _conversation(loop: asyncio.AbstractEventLoop, ours: socket.socket, asked: bytes) -> bytes:
    """Send a question, and receive what comes until the child has ended."""
    answer = bytearray()
    try:
        await loop.sock_sendall(ours, asked)
        ours.shutdown(socket.SHUT_WR)
        while (chunk := await loop.sock_recv(ours, _CHUNK)) and len(answer) <= MOST_ANSWER_BYTES:
            answer += chunk
    except ConnectionError:  # the child has ended without reading: its exit code says how
        return b""
    return bytes(answer)


async def _exit_code(loop: asyncio.AbstractEventLoop, fate: int) -> int:
    """Receive a child's exit code. Raise `_Lost` where nobody is left to tell it."""
    os.set_blocking(fate, False)
    while True:
        try:
            told = os.read(fate, FATE.size)
        except BlockingIOError:
            await _readable(loop, fate)
            continue
        if len(told) != FATE.size:
            raise _Lost("the process that inspections are forked from has died")
        return FATE.unpack(told)[0]


async def _readable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    ready = loop.create_future()
    loop.add_reader(descriptor, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _understood(answer: bytes, exit_code: int) -> Unpacked | Sound | Resolved | Refusal | Failure:
    """Return what a child has answered. One that was killed, by a limit or by the system, has needed too much."""
    if exit_code < 0:
        return Failure.of("exhausted")
    try:
        return ANSWERS.validate_json(answer)
    except ValidationError:
        return Failure.of("unexpected", f"exit code {exit_code}, {len(answer)} bytes that are no answer")


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
