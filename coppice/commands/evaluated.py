"""The options of how quality is evaluated: columns to slice by, and further evaluation sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol, cast

import typer

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


class _Options(Protocol):
    @property
    def slices(self) -> list[str] | None: ...

    @property
    def also(self) -> list[str] | None: ...


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
    return {"evaluation": {**given, **found}} if found else {}


def _set(text: str, located: Callable[[str], str]) -> dict[str, str]:
    name, equals, data = text.partition("=")
    if not equals or not name.strip() or not data.strip():
        fail(f"--also {text}: give NAME=DATA, such as --also reviews=./reviews.csv", ExitCode.BAD_INPUT)
    return {"name": name.strip(), "data": located(data.strip())}
