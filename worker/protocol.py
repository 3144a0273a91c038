"""The protocol of supervisor and child: files in the scratch folder, progress lines on a pipe. Torch-free."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import assert_never

from pydantic import BaseModel

from pruning_core.spec.prune import PruneSpec
from worker.scratch import WORK


class ChildExit(IntEnum):
    """The exit codes of a child that nothing has killed."""

    SUCCEEDED = 0
    FAILED = 3  # error.json has the reason; a bundle and result.json, if any, are the best candidate


class ChildRequest(BaseModel):
    """``request.json``: everything that the child needs."""

    spec: PruneSpec
    device: str | None
    threads: int | None
    cache: Path | None = None
    memory_bytes: int | None = None


class ChildError(BaseModel):
    """``error.json``: why the child gave up. ``transient``: another attempt may succeed."""

    code: str
    message: str
    param: str | None = None
    transient: bool = False


class Scratch:
    """The files of one attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.request = folder / "request.json"
        self.error = folder / "error.json"
        self.report = folder / "result.json"
        self.bundle = folder / "bundle"
        self.work = folder / WORK

    def ending(self, code: int) -> ChildExit | None:
        """Return how a child has ended, or None where its exit code is another, or the files that it owes are missing."""
        try:
            way = ChildExit(code)
        except ValueError:
            return None
        match way:
            case ChildExit.SUCCEEDED:
                return way if self.has_result else None
            case ChildExit.FAILED:
                return way if self.error.is_file() else None
            case _:
                assert_never(way)

    @property
    def has_result(self) -> bool:
        """Whether the child has left a bundle and the report on it."""
        return self.report.is_file() and self.bundle.is_dir()
