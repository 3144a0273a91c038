"""The audit log as lines of JSON, each of which names the digest of the line before: a change of any of them shows.

The digest of a line is the sha256 of its bytes, without the line's end. `coppice audit verify` recomputes them, and so can any
other program: ``sha256sum`` of one line is what the next one names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from app.audit.records import AuditEvent

FIRST = "sha256:" + "0" * 64  # what the first line of a chain names


def lines(events: Iterable[AuditEvent], *, previous: str = FIRST) -> Iterator[str]:
    """Yield the lines of events, oldest first, without line ends.

    Args:
        events: The events.
        previous: Digest of the last line that was exported before them.
    """
    for event in events:
        # A line of a key's has no person: lines stay what they were before people could sign in.
        fields = {name: value for name, value in asdict(event).items() if name != "person" or value is not None}
        shown = {"tenant" if name == "owner" else name: value for name, value in fields.items()}
        line = json.dumps(shown | {"previous": previous}, separators=(",", ":"))
        yield line
        previous = digest_of(line)


def digest_of(line: str) -> str:
    """Return the digest that the next line names."""
    return f"sha256:{hashlib.sha256(line.encode()).hexdigest()}"
