"""The receiving of an upload: asked for before it comes, counted as it comes, read by another process, then kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import IO

from fastapi.concurrency import run_in_threadpool

from app.inspection.inspector import Inspector
from app.inspection.records import UploadKind
from app.keys.records import Caller
from app.refusals import Refused, TooLarge
from app.settings import Settings
from app.uploads.drafts import Draft, Drafts
from app.uploads.records import Upload
from app.uploads.service import UploadService

_PIECE_BYTES = 2**20  # written at once: a thread is asked for each
_LOOK_EVERY_BYTES = 16 * 2**20
_WRITERS = 8  # threads that write; a slow disk holds no others up


class Receiver:
    """Receives uploads."""

    def __init__(self, settings: Settings, uploads: UploadService, inspector: Inspector) -> None:
        self._settings = settings
        self._uploads = uploads
        self._inspector = inspector
        self._drafts = Drafts(settings, uploads)
        self._writers = asyncio.Semaphore(_WRITERS)

    async def receive(
        self, kind: UploadKind, body: AsyncIterable[bytes], *, declared: int | None, caller: Caller
    ) -> tuple[Upload, bool]:
        """Receive an archive, check it, and keep its content. Nothing of the body is asked for before there is room for it.

        Args:
            kind: What it should hold.
            body: Its bytes as they come.
            declared: Their number as announced; None where it was not.
            caller: Who sends it.

        Returns:
            The upload, and whether it is new to its owner.

        Raises:
            Refused: The archive holds no valid model or data set.
            TooLarge: It has more bytes than any upload may have.
            QuotaExceeded: The owner has uploaded too much, or has too much under way.
            NoRoom: The disk is full.
            Busy: Too many other archives are being read.
        """
        if declared is not None and declared > self._settings.max_upload_bytes:
            raise TooLarge("upload_too_large", f"an upload may have {self._settings.max_upload_bytes} bytes")
        draft = await run_in_threadpool(self._drafts.begin, caller.owner, declared or 0)
        try:
            await self._write(body, draft)
            return await self._keep(kind, draft, caller)
        finally:
            await run_in_threadpool(self._drafts.end, draft)

    async def _write(self, body: AsyncIterable[bytes], draft: Draft) -> None:
        piece, received, unlooked = bytearray(), 0, 0
        with draft.archive.open("wb") as file:
            async for chunk in body:
                piece += chunk
                received += len(chunk)
                if received > draft.allowed:
                    raise self._drafts.exceeded()
                if len(piece) < _PIECE_BYTES:
                    continue
                unlooked += len(piece)
                await self._write_piece(file, piece, draft)
                piece = bytearray()
                if unlooked >= _LOOK_EVERY_BYTES:
                    unlooked = 0
                    await run_in_threadpool(self._drafts.check, draft)
            await self._write_piece(file, piece, draft)
        await run_in_threadpool(self._drafts.check, draft)

    async def _write_piece(self, file: IO[bytes], piece: bytearray, draft: Draft) -> None:
        def write() -> None:
            self._drafts.check_disk(draft, len(piece))
            file.write(piece)

        async with self._writers:
            await run_in_threadpool(write)

    async def _keep(self, kind: UploadKind, draft: Draft, caller: Caller) -> tuple[Upload, bool]:
        allowed = 0

        def largest() -> int:
            nonlocal allowed
            allowed = self._drafts.largest_content(draft)
            return allowed

        try:
            files = await self._inspector.unpack(draft.archive, kind, draft.content, largest=largest, owner=caller.owner)
        except Refused as refusal:
            if refusal.code == "upload_too_large" and allowed < self._settings.max_upload_bytes:
                raise self._drafts.exceeded() from None
            raise
        await run_in_threadpool(draft.archive.unlink)
        if kind is UploadKind.MODEL:
            await self._inspector.check_model(draft.content, owner=caller.owner)
        return await run_in_threadpool(self._uploads.keep, kind, files, draft.content, caller=caller)
