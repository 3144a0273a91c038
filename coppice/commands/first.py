"""The options that change a model before it is pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Protocol

import typer

from coppice.commands.places import absolute, is_path

Adapter = Annotated[str | None, typer.Option(help="Folder of a LoRA adapter of PEFT, which is merged into the model first.")]
Vocabulary = Annotated[
    str | None,
    typer.Option(
        help="Cut the vocabulary: seen (what the data needs), languages such as en,de besides, or a file of tokens "
        "(.txt or .json) besides."
    ),
]


class First(Protocol):
    """Who has these options."""

    @property
    def adapter(self) -> str | None:
        """Place of an adapter."""
        ...

    @property
    def vocabulary(self) -> str | None:
        """Which tokens stay."""
        ...


def changed_first(given: First) -> dict[str, str]:
    """Return the fields of a spec that the options set. Paths become absolute."""
    found: dict[str, str] = {}
    if given.adapter is not None:
        found["adapter"] = absolute(given.adapter) if is_path(given.adapter) or Path(given.adapter).is_dir() else given.adapter
    if given.vocabulary is not None:
        is_file = is_path(given.vocabulary) or Path(given.vocabulary).suffix
        found["vocabulary"] = absolute(given.vocabulary) if is_file else given.vocabulary
    return found
