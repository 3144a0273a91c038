"""``coppice audit``: export the audit log as a chain of lines, and check one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from coppice import console
from coppice.audit_chain import FIRST, Chain, ChainBroken, check
from coppice.client import Client
from coppice.commands import options
from coppice.commands.keys import Url
from coppice.console import ExitCode, explained, fail
from coppice.installation import require_server

audit = typer.Typer(
    help="Export the log of who changed what, and check that an export is whole. Export on the service's host with the "
    "service's settings, elsewhere with --url and a key that has the scope admin.",
    no_args_is_help=True,
)


@audit.command()
def export(
    out: Annotated[
        Path | None, typer.Option(help="File to write, or to go on with where it holds an earlier export; default: stdout.")
    ] = None,
    url: Url = None,
    key: options.ApiKey = None,
) -> None:
    """Export the audit log: one line of JSON an event, oldest first, each with the sha256 of the line before.

    With a file that holds an export, what came since is appended, after the file was checked.
    """
    before = _checked(out) if out is not None and out.exists() else Chain(0, 0, FIRST)
    with explained():
        if url is not None:
            with Client(url, api_key=key) as client:
                _write(out, [client.export_audit(after=before.last_id, previous=before.head)])
        else:
            _export_here(out, before)
    if out is not None:
        after = _checked(out)
        console.err.print(f"{after.lines - before.lines} new of {after.lines} lines; {after.head}", highlight=False)


@audit.command()
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An export.")],
    head: Annotated[
        str | None,
        typer.Option(help="Digest that the last line must have, as noted elsewhere: finds lines cut off at the end."),
    ] = None,
) -> None:
    """Check that no line of an export was changed, taken out or moved."""
    chain = _checked(file)
    if head is not None and head != chain.head:
        fail(f"the last line has the digest {chain.head}: lines were cut off or added behind it", ExitCode.CONDITION_HOLDS)
    console.out.print(f"{chain.lines} lines, whole; {chain.head}", highlight=False)


def _checked(file: Path) -> Chain:
    try:
        with file.open("rb") as lines:
            return check(line.rstrip(b"\n") for line in lines)
    except ChainBroken as error:
        fail(f"{file}: {error}", ExitCode.CONDITION_HOLDS)
    except OSError as error:
        fail(f"{file} cannot be read ({error.strerror})", ExitCode.BAD_INPUT)


def _export_here(out: Path | None, before: Chain) -> None:
    require_server()
    from app.audit.service import AuditService
    from coppice.commands.service import open_database

    with open_database() as (_settings, database):
        _write(out, AuditService(database).export(after=before.last_id, previous=before.head))


def _write(out: Path | None, lines: Iterable[str]) -> None:
    if out is None:
        for line in lines:
            typer.echo(line, nl=False)
        return
    try:
        with out.open("a", encoding="utf-8", newline="") as file:
            file.writelines(lines)
    except OSError as error:
        fail(f"{out} cannot be written ({error.strerror})", ExitCode.BAD_INPUT)
