"""``coppice doctor``: check everything that this host's part of the service needs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, assert_never

import typer
from rich.table import Table
from rich.text import Text

from coppice import console
from coppice.commands import options
from coppice.commands.service import read_settings
from coppice.console import ExitCode
from coppice.installation import require_server

if TYPE_CHECKING:
    from coppice.commands.checks import Finding, Status

_NARROW = 100


def doctor(
    strict: Annotated[bool, typer.Option(help="Exit with 3 on warnings, too.")] = False,
    json: options.Json = False,
) -> None:
    """Check database, migrations, workers, broker, store, disks and device, with the settings of this environment.

    It writes and deletes one small file in each folder and in the store, and changes nothing else. Exit codes: 0 all is
    well, 2 the settings make no sense, 3 something cannot be used.
    """
    require_server()
    settings = read_settings()
    from app.logs import configure_logging
    from coppice.commands.checks import examine

    # The findings say what libraries would log.
    configure_logging(as_json=False)
    logging.getLogger().setLevel(logging.CRITICAL)
    findings = list(examine(settings))
    if json:
        typer.echo(f"[{', '.join(finding.model_dump_json() for finding in findings)}]")
    else:
        _show(findings)
    if any(_is_bad(finding.status, strict=strict) for finding in findings):
        raise typer.Exit(ExitCode.UNREACHABLE)


def _show(findings: Sequence[Finding]) -> None:
    """Show findings: as a table, or one under the other where the terminal is narrow."""
    rows = [
        [
            Text(one.check),
            Text.from_markup(_shown(one.status)),
            *(Text(console.plain(text)) for text in (one.found, one.advice)),
        ]
        for one in findings
    ]
    if console.out.is_terminal and console.out.width < _NARROW:
        console.show_rows(("check", "", "", "advice"), rows)
        return
    table = Table()
    for heading in ("check", "", "found", "advice"):
        table.add_column(heading, no_wrap=heading in ("check", ""))
    for row in rows:
        table.add_row(*row)
    console.show_table(table)


def _shown(status: Status) -> str:
    match status:
        case "ok":
            return "[green]ok[/]"
        case "warning":
            return "[yellow]warning[/]"
        case "failed":
            return "[bold red]failed[/]"
        case "skipped":
            return "[dim]skipped[/]"
        case _:
            assert_never(status)


def _is_bad(status: Status, *, strict: bool) -> bool:
    match status:
        case "failed":
            return True
        case "warning":
            return strict
        case "ok" | "skipped":
            return False
        case _:
            assert_never(status)
