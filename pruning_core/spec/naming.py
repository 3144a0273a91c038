"""What people call a run: one line of text. Torch-free."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

LONGEST_NAME = 200

# Control characters, ends of lines, and signs that turn the direction of text around, which would rearrange what stands beside.
# Not the joiners of emoji and of several scripts.
NO_LINE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_REFUSED = re.compile(f"[{NO_LINE}]")


def one_line(text: str) -> str:
    """Return a text that is one line; raise ``ValueError`` for another."""
    if found := _REFUSED.search(text):
        raise ValueError(f"must be one line of text without control characters, and has U+{ord(found[0]):04X}")
    return text


RunName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME),
    AfterValidator(one_line),
    Field(json_schema_extra={"pattern": f"^[^{NO_LINE}]*$"}),
]
