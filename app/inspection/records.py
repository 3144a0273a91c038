"""What an inspection is about, as frozen values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class UploadKind(StrEnum):
    """The kinds of uploads."""

    MODEL = "model"
    DATASET = "dataset"

    @property
    def prefix(self) -> str:
        """The prefix of its ids."""
        match self:
            case UploadKind.MODEL:
                return "mdl_"
            case UploadKind.DATASET:
                return "dst_"
            case _:
                assert_never(self)


UPLOAD_PREFIXES = tuple(kind.prefix for kind in UploadKind)
UPLOAD_ID = re.compile(f"({'|'.join(UPLOAD_PREFIXES)})[0-9a-f]{{64}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """One file: its path in the upload, size in bytes, and sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one inspection may use.

    Attributes:
        memory_bytes: Address space beyond what the process has when it begins.
        cpu_s: Seconds of a processor.
        wall_s: Seconds until it is killed.
        file_bytes: Largest file that it may write; 0: it writes none.
    """

    memory_bytes: int
    cpu_s: int
    wall_s: int
    file_bytes: int = 0


def pointer_of(param: str | None) -> str:
    """Return the JSON pointer of a field of the spec, by its dotted path."""
    return "" if param is None else "/" + param.replace(".", "/")
