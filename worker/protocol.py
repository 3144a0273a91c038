"""The protocol of supervisor and child: files in the scratch folder, progress lines on a pipe. Torch-free.

What a child has written is read as a stranger's: it has read a stranger's files.
"""

from __future__ import annotations

import os
import stat
from enum import IntEnum
from pathlib import Path
from typing import Annotated, assert_never

from pydantic import AfterValidator, BaseModel, Field

from pruning_core.files.hub import Source
from pruning_core.spec.prune import PruneSpec
from worker.sandbox.confinement import Confinement
from worker.scratch import WORK

LONGEST_MESSAGE = 4000
_LARGEST_BYTES = 16 * 2**20  # of a report on very many targets and layers


class ChildUnreliable(Exception):
    """A child has left something else than the plain files that it owes."""


class ChildExit(IntEnum):
    """The exit codes of a child that nothing has killed."""

    SUCCEEDED = 0
    FAILED = 3  # error.json has the reason; a bundle and result.json, if any, are the best candidate


# PostgreSQL takes no zero in a text.
Text = Annotated[str, AfterValidator(lambda text: text.replace("\0", "\N{REPLACEMENT CHARACTER}"))]


class ChildRequest(BaseModel):
    """``request.json``: everything that the child needs."""

    spec: PruneSpec
    device: str | None
    threads: int | None
    cache: Path | None = None
    statistics: Path | None = None
    statistics_bytes: int | None = None
    notes: tuple[str, ...] = ()
    calibrates: bool = False
    hub_cache: Path | None = None
    engines: Path | None = None
    memory_bytes: int | None = None
    model_name: str | None = None
    name: str | None = None
    confinement: Confinement | None = None


class FetchRequest(BaseModel):
    """``fetch.json``: what is to be fetched from the Hub, and into which cache."""

    sources: tuple[Source, ...]
    hub_cache: Path
    confinement: Confinement | None = None


class ChildError(BaseModel):
    """``error.json``: why the child gave up. ``transient``: another attempt may succeed."""

    code: str = Field(max_length=64, pattern=r"^[a-z_]+$")
    message: Text = Field(max_length=LONGEST_MESSAGE)
    param: Text | None = Field(default=None, max_length=200)
    transient: bool = False


class Scratch:
    """The files of one attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.request = folder / "request.json"
        self.fetch = folder / "fetch.json"
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

    def read(self, path: Path) -> str:
        """Read a file that the child has written, if it is a plain one and not too large.

        Raises:
            ChildUnreliable: It is a link, a pipe or the like, or larger than any honest one, or not UTF-8.
        """
        try:
            # Without waiting for a writer, where it is a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise ChildUnreliable(f"{path.name} cannot be opened as a file") from error
        if not is_plain(os.fstat(descriptor)):
            os.close(descriptor)
            raise ChildUnreliable(f"{path.name} is no plain file")
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise ChildUnreliable(f"{path.name} is larger than {_LARGEST_BYTES} bytes")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ChildUnreliable(f"{path.name} is not UTF-8") from error

    @property
    def has_result(self) -> bool:
        """Whether the child has left a bundle and the report on it."""
        return self.report.is_file() and self.bundle.is_dir()


def is_plain(found: os.stat_result) -> bool:
    """Return whether this is a regular file with one name. A second name could be that of a file of somebody else."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
