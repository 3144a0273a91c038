"""Uploads as frozen values."""

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


_FORM = re.compile(f"({'|'.join(kind.prefix for kind in UploadKind)})[0-9a-f]{{64}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """One file: its path in the upload, size in bytes, and sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Upload:
    """Checked content that jobs of its owner may name by its id."""

    id: str
    owner: str
    kind: UploadKind
    size: int
    files: tuple[UploadedFile, ...]
    created_at: float


def is_upload_id(reference: str) -> bool:
    """Return whether a reference is the id of an upload, not a Hub id or a path."""
    return _FORM.fullmatch(reference) is not None
