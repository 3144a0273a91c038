"""``coppice engines``: which engines are here to run bundles in, and how to install the others."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from coppice import console
from coppice.commands import options
from pruning_core.engines.registry import ENGINES, Found, Missing, engines_folder, find


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
    if json:
        typer.echo(json_module.dumps([_as_json(own) for own in found], indent=2))
        return
    rows = [[Text(own.engine.name), Text(_status(own)), Text(console.plain(_detail(own)))] for own in found]
    console.show_rows(("engine", "found", "interpreter, or how to install it"), rows)
    console.out.print(f"environments: {console.escaped(engines_folder(folder))}", soft_wrap=True, highlight=False)


def _status(own: Found | Missing) -> str:
    return own.version if isinstance(own, Found) else "missing"


def _detail(own: Found | Missing) -> str:
    return str(own.interpreter) if isinstance(own, Found) else f"{own.why}; {own.how}"


def _as_json(own: Found | Missing) -> dict[str, object]:
    row: dict[str, object] = {"engine": own.engine.name, "title": own.engine.title, "found": isinstance(own, Found)}
    if isinstance(own, Found):
        return row | {"version": own.version, "versions": dict(own.versions), "interpreter": str(own.interpreter)}
    return row | {"why": own.why, "how": own.how}
