"""The options of how quality is evaluated: slices, further evaluation sets, the ledger, quoted rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol, cast

import typer

from coppice.commands.places import absolute
from coppice.console import ExitCode, fail

Slices = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        metavar="COLUMN",
        help="Show the worst slices of the validation rows by a column's values. Repeat for several.",
    ),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        "--also",
        metavar="NAME=DATA",
        help="Compare dense and pruned on a further evaluation set, too: a folder, a file or a Hub id. Repeat for several; a "
        "--spec file sets its split, columns and metric.",
    ),
]
UsesLedger = Annotated[
    bool | None,
    typer.Option(
        "--ledger",
        help="Judge what decoders and embedders can do beside their task, too: code, sums, writing to an end, on made texts.",
    ),
]
LedgerTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--ledger-text",
        metavar="NAME=FILE",
        help="A text of your own for the ledger, such as german=./german.txt. Implies --ledger. Repeat for several.",
    ),
]
Examples = Annotated[
    int | None,
    typer.Option(
        "--examples",
        metavar="N",
        help="Rows whose answers changed most that the report quotes; 0: none.  [default: 20]",
    ),
]


class _Options(Protocol):
    @property
    def slices(self) -> list[str] | None: ...

    @property
    def also(self) -> list[str] | None: ...

    @property
    def ledger(self) -> bool | None: ...

    @property
    def ledger_texts(self) -> list[str] | None: ...

    @property
    def examples(self) -> int | None: ...


def evaluated(options: _Options, in_file: object, located: Callable[[str], str]) -> dict[str, Any]:
    """Return the field ``evaluation`` where options set any of it; bad input ends the command.

    Args:
        options: The options.
        in_file: The spec file's ``evaluation``. Sets of options stand behind its own.
        located: Function that makes a path of data absolute.
    """
    given = cast("Mapping[str, Any]", in_file) if isinstance(in_file, Mapping) else {}
    found: dict[str, Any] = {} if options.slices is None else {"slices": options.slices}
    if options.also is not None:
        found["also"] = [*given.get("also", ()), *(_set(text, located) for text in options.also)]
    if options.examples is not None:
        found["examples"] = options.examples
    if options.ledger or options.ledger_texts:
        found["ledger"] = _ledger(options.ledger_texts or [], given.get("ledger"))
    return {"evaluation": {**given, **found}} if found else {}


def _set(text: str, located: Callable[[str], str]) -> dict[str, str]:
    name, data = _named("--also", text, "NAME=DATA", "reviews=./reviews.csv")
    return {"name": name, "data": located(data)}


def _ledger(texts: Sequence[str], in_file: object) -> dict[str, Any] | bool:
    """Return the ledger of the spec file with the texts of options added."""
    if not texts:
        return cast("dict[str, Any]", in_file) if isinstance(in_file, Mapping) else True
    kept = cast("Mapping[str, Any]", in_file) if isinstance(in_file, Mapping) else {}
    named = dict(_named("--ledger-text", text, "NAME=FILE", "german=./german.txt") for text in texts)
    return {**kept, "texts": {**kept.get("texts", {}), **{name: absolute(place) for name, place in named.items()}}}


def _named(option: str, text: str, form: str, example: str) -> tuple[str, str]:
    """Split NAME=PLACE."""
    name, equals, place = text.partition("=")
    if not equals or not name.strip() or not place.strip():
        fail(f"{option} {text}: give {form}, such as {option} {example}", ExitCode.BAD_INPUT)
    return name.strip(), place.strip()
