"""A share of rows that is held out to validate on: the same rows whoever asks, spread evenly over the file. Torch-free."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import TypeVar

from pruning_core.data.table import Role

Row = TypeVar("Row")


def rows_of(rows: Iterable[Row], share: float, role: Role) -> Iterator[Row]:
    """Keep the rows of one of two parts.

    Of every ``1 / share`` rows in turn, one is held out; which one, a hash of their place decides, since labels may come in
    turns. Neither the seed of a job nor the number of rows counts: the parts are the same in every job, and never overlap.

    Args:
        rows: All rows, in their order.
        share: Share to hold out.
        role: ``validation`` keeps what is held out, ``train`` the rest.
    """
    turn, end, held = 0, 0, -1
    for place, row in enumerate(rows):
        while place >= end:
            start, end = end, math.ceil((turn + 1) / share)
            held = start + _draw(turn) % (end - start) if turn else min(1, end - 1)  # two rows are enough for both parts
            turn += 1
        if (place == held) == (role == "validation"):
            yield row


def _draw(turn: int) -> int:
    return int.from_bytes(hashlib.blake2b(turn.to_bytes(8, "little"), digest_size=8).digest(), "little")
