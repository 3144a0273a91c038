"""``coppice engines``: which engines are here to run bundles in, and how to install the others."""

from __future__ import annotations

import json as json_module
import os
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from coppice import console
from coppice.commands import options
from pruning_core.engines.registry import ENGINES, FOLDER_VARIABLE, Found, Missing, engines_folder, find

_INDENT = "    "


def engines(
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of the environments; by default COPPICE_ENGINES_DIR, else the one that make engines fills."),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the engines that bundles can be run in: the version and interpreter of those found, how to install the others.

    Each one is imported, which takes some seconds. A job asks for them by artifacts.engines, or --engine.
    """
    found = [find(name, folder) for name in ENGINES]
    _warn_of_no_folder(folder)
    if json:
        typer.echo(json_module.dumps([_as_json(own) for own in found], indent=2))
        return
    names = max(len(own.engine.name) for own in found)
    for own in found:
        console.out.print(f"{own.engine.name:<{names}}  {console.escaped(_status(own))}", soft_wrap=True, highlight=False)
        for line in _details(own, console.out.width):
            console.out.print(console.escaped(f"{_INDENT}{line}"), soft_wrap=True, highlight=False)
    console.out.print(f"environments: {console.escaped(engines_folder(folder))}", soft_wrap=True, highlight=False)


def _warn_of_no_folder(given: Path | None) -> None:
    named = "--folder" if given is not None else FOLDER_VARIABLE if os.environ.get(FOLDER_VARIABLE) else None
    if named is not None and not engines_folder(given).is_dir():
        console.note(f"{named} names {engines_folder(given)}, and there is no such folder: no engine is found there")


def _status(own: Found | Missing) -> str:
    return own.version if isinstance(own, Found) else "missing"


def _details(own: Found | Missing, width: int) -> list[str]:
    """Return the lines below an engine's name. Paths and words of a command stay whole, and may be longer than a line."""
    if isinstance(own, Found):
        return [str(own.interpreter)]
    room = max(width - len(_INDENT), 20)
    return [
        line
        for part in (own.why, own.how)
        for line in textwrap.wrap(part, room, break_long_words=False, break_on_hyphens=False)
    ]


def _as_json(own: Found | Missing) -> dict[str, object]:
    row: dict[str, object] = {"engine": own.engine.name, "title": own.engine.title, "found": isinstance(own, Found)}
    if isinstance(own, Found):
        return row | {"version": own.version, "versions": dict(own.versions), "interpreter": str(own.interpreter)}
    return row | {"why": own.why, "how": own.how}
