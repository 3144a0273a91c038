"""What people call their jobs: a name for each, and tags by which several are found together (docs/decisions/0148)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import sqlalchemy as sa
from pydantic import AfterValidator, Field, StringConstraints

from pruning_core.spec.naming import NO_LINE, one_line

LONGEST_TAG = 60
MOST_TAGS = 16

# In the table of labels, where no key of metadata can begin like this.
_PREFIX = "tag:"


def _one_tag(text: str) -> str:
    if "," in text:
        raise ValueError("must hold no comma, which separates tags")
    return one_line(text)


def _each_once(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))


Tag = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_TAG),
    AfterValidator(_one_tag),
    Field(json_schema_extra={"pattern": f"^[^{NO_LINE},]*$"}),
]
Tags = Annotated[tuple[Tag, ...], Field(max_length=MOST_TAGS), AfterValidator(_each_once)]


@dataclass(frozen=True, slots=True)
class Naming:
    """What a job is called: its name, if it has one, and its tags in their order."""

    name: str | None = None
    tags: tuple[str, ...] = ()


NO_NAMING = Naming()


def labels_of(tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the labels by which jobs with these tags are found; those of their metadata stand beside them."""
    yield from ((f"{_PREFIX}{tag}", "") for tag in tags)


def is_tag(key: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a label is a tag."""
    return key.startswith(_PREFIX, autoescape=True)
