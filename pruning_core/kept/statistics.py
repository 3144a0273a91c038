"""The statistics of one dense model on one set of data: found ready, or gathered and kept.

None of them depends on a budget, a layout or an engine. A piece is named by the sha256 of everything that it does depend on,
so that a piece of another model, of other data or of an older version is never found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pruning_core.kept.folder import KeptFolder
from pruning_core.kept.piece import Damaged, Json, Piece
from pruning_core.report.statistics import KeptReport, StatisticsKind, StatisticsReport

Found = TypeVar("Found")

# Raised whenever a change of the code changes what is gathered.
VERSION = 1


@dataclass(slots=True)
class Statistics:
    """What is kept of one dense model.

    Attributes:
        of: What all pieces depend on, as JSON: the model, the data, the task, the device.
        folder: Where they are kept; None: nowhere, and everything is gathered.
        warnings: What was wrong with kept pieces.
    """

    of: Mapping[str, Json] = field(default_factory=dict[str, Json])
    folder: KeptFolder | None = None
    warnings: list[str] = field(default_factory=list[str])
    _rows: list[KeptReport] = field(default_factory=list[KeptReport])

    def recalled(self, kind: StatisticsKind, key: Mapping[str, Json]) -> Piece | None:
        """Return a kept piece; None if there is none that can be used.

        Args:
            kind: What it is.
            key: What it depends on beside `of`, as JSON.
        """
        if self.folder is None:
            return None
        try:
            found = self.folder.read(self._key(kind, key))
        except Damaged as problem:
            self.warnings.append(f"kept statistics ({kind}) were damaged and gathered anew: {problem}")
            return None
        if found is not None:
            self._rows.append(KeptReport(kind=kind, reused=True, seconds=found.seconds, made=found.made, bytes=found.bytes))
        return found

    def keep(self, kind: StatisticsKind, key: Mapping[str, Json], piece: Piece) -> None:
        """Keep a piece, if there is a place and room for it."""
        if self.folder is not None and self.folder.write(self._key(kind, key), piece):
            self._rows.append(KeptReport(kind=kind, reused=False, seconds=piece.seconds, bytes=piece.bytes))

    def found(
        self,
        kind: StatisticsKind,
        key: Callable[[], Mapping[str, Json]],
        gather: Callable[[], Found],
        *,
        pack: Callable[[Found], Piece],
        unpack: Callable[[Piece], Found],
    ) -> Found:
        """Find out something of the dense model: from a kept piece, or gathered and then kept.

        Args:
            kind: What it is.
            key: Returns what it depends on beside `of`, as JSON; asked only where there is a folder.
            gather: Finds it out.
            pack: Makes the piece to keep.
            unpack: Returns what a piece was made of.
        """
        if self.folder is None:
            return gather()
        known_by = key()
        piece = self.recalled(kind, known_by)
        if piece is not None:
            return unpack(piece)
        began = time.perf_counter()
        found = gather()
        self.keep(kind, known_by, replace(pack(found), seconds=time.perf_counter() - began))
        return found

    def report(self) -> StatisticsReport | None:
        """Report what was reused and what was kept; None without a folder."""
        return None if self.folder is None else StatisticsReport(pieces=tuple(self._rows))

    def _key(self, kind: StatisticsKind, key: Mapping[str, Json]) -> dict[str, Json]:
        return {"version": VERSION, "kind": kind, "of": dict(self.of), **key}
