"""Checks an exported audit log: each line names the sha256 of the line before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

FIRST = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain without a fault: its number of lines, the id in the last one, and that line's digest."""

    lines: int
    last_id: int
    head: str


class ChainBroken(Exception):
    """A line was changed, taken out or moved; the message says which, counted from 1."""


def check(lines: Iterable[bytes]) -> Chain:
    """Check lines without their ends.

    Raises:
        ChainBroken: One of them is not what was exported, or does not follow on the line before.
    """
    number, last_id, head = 0, 0, FIRST
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            event_id, previous = int(event["id"]), str(event["previous"])
        except (ValueError, KeyError, TypeError):
            raise ChainBroken(f"line {number} is no line of an exported audit log") from None
        if previous != head:
            where = "names no beginning" if number == 1 else f"does not follow on line {number - 1}"
            raise ChainBroken(f"line {number} {where}: a line before it was changed, is missing, or is in another place")
        if event_id <= last_id:
            raise ChainBroken(f"line {number} has the id {event_id}, which is not greater than the one before")
        last_id, head = event_id, f"sha256:{hashlib.sha256(line).hexdigest()}"
    return Chain(number, last_id, head)
