"""How much a JSON body may hold. Bytes alone are no bound: what is wrong with each of half a million values would be said."""

from __future__ import annotations

from typing import cast

MOST_VALUES = 2000  # the largest sound request, with all defaults written out and 16 targets, has some 400
TOO_WIDE = f"a body may have {MOST_VALUES} values at most, those within lists and objects included"


def is_too_wide(document: object) -> bool:
    """Return whether a document has more values than any sound one. This looks at no more than those."""
    count, waiting = 0, [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            inner = cast("dict[str, object]", value)
        elif isinstance(value, list):
            inner = cast("list[object]", value)
        else:
            continue
        count += len(inner)
        if count > MOST_VALUES:
            return True
        waiting += inner.values() if isinstance(inner, dict) else inner
    return False
