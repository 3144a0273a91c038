"""One kept piece: tensors and facts in a safetensors file that says what it holds, when it was made, and its own digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

# Values of JSON: what keys and facts are made of.
Json = Any

_ENTRY = "coppice"


class Damaged(Exception):
    """A file is no whole piece, or not the one that its name promises."""


class _Label(BaseModel):
    """What stands in the file's header beside its tensors."""

    model_config = ConfigDict(extra="forbid")

    key: dict[str, Json]
    facts: dict[str, Json]
    made: str
    seconds: float
    sha256: str


@dataclass(frozen=True, slots=True)
class Piece:
    """What was found out about a dense model, to be found again.

    Attributes:
        tensors: Its tensors by name.
        facts: What is no tensor, as JSON.
        seconds: How long it took to gather.
        made: When, in ISO 8601.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Json] = field(default_factory=dict[str, Json])
    seconds: float = 0.0
    made: str = ""

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(own.nbytes for own in self.tensors.values())


def name_of(key: Mapping[str, Json]) -> str:
    """Return the name of the file for a key: the sha256 of its canonical JSON."""
    return hashlib.sha256(_canonical(key)).hexdigest()


def write_piece(path: Path, key: Mapping[str, Json], piece: Piece) -> None:
    """Write a piece into a new file.

    Raises:
        OSError: It cannot be written.
    """
    tensors = {name: own.detach().cpu().contiguous() for name, own in piece.tensors.items()}
    label = _Label(
        key=dict(key),
        facts=dict(piece.facts),
        made=piece.made or datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=piece.seconds,
        sha256=_digest(tensors, key, piece.facts),
    )
    try:
        save_file(tensors, path, metadata={_ENTRY: label.model_dump_json()})
    except SafetensorError as error:  # how this library tells of a full disk
        raise OSError(str(error)) from error


def read_piece(path: Path, key: Mapping[str, Json]) -> Piece:
    """Read a piece, and check that it is the one for a key and as it was written.

    Raises:
        FileNotFoundError: There is none.
        Damaged: The file is cut off, changed, of another key, or no piece.
        OSError: It cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            label = _Label.model_validate_json((file.metadata() or {}).get(_ENTRY, ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValidationError, RuntimeError) as error:
        raise Damaged(str(error)) from error
    if _canonical(label.key) != _canonical(key):
        raise Damaged("it is of another key")
    if label.sha256 != _digest(tensors, key, label.facts):
        raise Damaged("its content is not what was written")
    return Piece(tensors, label.facts, label.seconds, label.made)


def packed(parts: list[Tensor]) -> Piece:
    """Pack tensors of any shapes and types into a piece of a few large ones."""
    kinds = list(dict.fromkeys(own.dtype for own in parts))
    flat = {str(kind).removeprefix("torch."): [own.reshape(-1) for own in parts if own.dtype == kind] for kind in kinds}
    shapes = [[str(own.dtype).removeprefix("torch."), *own.shape] for own in parts]
    return Piece({name: torch.cat(own) for name, own in flat.items()}, {"shapes": shapes})


def unpacked(piece: Piece) -> list[Tensor]:
    """Return the tensors that `packed` has packed."""
    starts = dict.fromkeys(piece.tensors, 0)
    found: list[Tensor] = []
    for kind, *shape in cast("list[list[Any]]", piece.facts["shapes"]):
        size = 1
        for side in cast("list[int]", shape):
            size *= side
        found.append(piece.tensors[kind][starts[kind] : starts[kind] + size].view(shape))
        starts[kind] += size
    return found


def _digest(tensors: Mapping[str, Tensor], key: Mapping[str, Json], facts: Mapping[str, Json]) -> str:
    digest = hashlib.sha256(_canonical({"key": key, "facts": facts}))
    for name, own in sorted(tensors.items()):
        digest.update(_canonical([name, str(own.dtype), list(own.shape)]))
        digest.update(own.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _canonical(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
