"""``coppice tenants set``, ``coppice queue set`` and ``list``: shares and limits, in the service's database or over HTTP."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from coppice import console
from coppice.client import Client
from coppice.commands import options
from coppice.commands.keys import Url
from coppice.commands.queue import queue
from coppice.commands.tenants import tenants
from coppice.console import ExitCode, explained, fail
from coppice.installation import require_server
from coppice.types import NamedQueue

if TYPE_CHECKING:
    from app.jobs.rules import RuleService
    from app.keys.records import Caller


@dataclass(frozen=True)
class _Set:
    """What is set for a tenant."""

    share: float
    max_running: int | None


@tenants.command("set")
def set_tenant(
    tenant: Annotated[str, typer.Argument(help="Tenant, as of coppice keys create --tenant.")],
    share: Annotated[
        float | None, typer.Option(help="Share of the turns beside those of other tenants, who have 1: 3 is three to one.")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(min=0, help="Jobs that may run at once; 0: as COPPICE_MAX_RUNNING_JOBS says.")
    ] = None,
    url: Url = None,
    key: options.ApiKey = None,
) -> None:
    """Set a tenant's share, or how many of its jobs run at once. It holds from the next claim on.

    Example: coppice tenants set acme --share 3 --max-running 8
    """
    if share is None and max_running is None:
        fail("give --share, --max-running or both", ExitCode.BAD_INPUT)
    found = _set_tenant(tenant, share, max_running, url, key)
    limit = "as many jobs at once as the settings allow" if found.max_running is None else f"{found.max_running} jobs at once"
    console.out.print(f"{tenant}: share {found.share:g}, {limit}", highlight=False, markup=False)


@queue.command("set")
def set_queue(
    name: Annotated[str, typer.Argument(metavar="QUEUE", help="Queue, as coppice queue list shows it: cuda, or cuda+a100.")],
    max_running: Annotated[int, typer.Option(min=0, help="Jobs that may run at once; 0: any number.")],
    url: Url = None,
    key: options.ApiKey = None,
) -> None:
    """Set how many jobs of a queue run at once. It holds from the next claim on.

    Example: coppice queue set cuda+a100 --max-running 4
    """
    if url is not None:
        with explained(), Client(url, api_key=key) as client:
            client.set_queue(name, max_running=max_running or None)
    else:
        with _rules() as rules:
            rules.set_queue(name, max_running=max_running, caller=_caller())
    shown = f"{max_running} at once" if max_running else "any number at once"
    console.out.print(f"{name}: {shown}", highlight=False, markup=False)


@queue.command("list")
def list_queues(url: Url = None, key: options.ApiKey = None, json: options.Json = False) -> None:
    """List queues that have jobs open, or a limit."""
    if url is not None:
        with explained(), Client(url, api_key=key) as client:
            found = client.queues()
    else:
        with _rules() as rules:
            found = [
                NamedQueue(queue=own.name, max_running=own.max_running, waiting=own.waiting, running=own.running)
                for own in rules.queues()
            ]
    if json:
        # Under "name", as before there was a client.
        typer.echo(jsonlib.dumps([{"name": own.queue} | own.model_dump(exclude={"queue"}) for own in found]))
        return
    rows = [(own.queue, str(own.max_running or ""), str(own.waiting), str(own.running)) for own in found]
    cells = [[Text(console.plain(cell)) for cell in row] for row in rows]
    console.show_rows(("queue", "at once", "waiting", "running"), cells)


def _set_tenant(name: str, share: float | None, max_running: int | None, url: str | None, key: str | None) -> _Set:
    if url is not None:
        with explained(), Client(url, api_key=key) as client:
            found = client.set_tenant(name, share=share, max_running="default" if max_running == 0 else max_running)
    else:
        with _rules() as rules:
            found = rules.set_tenant(name, share=share, max_running=max_running, caller=_caller())
    return _Set(found.share, found.max_running)


def _caller() -> Caller:
    from app.keys.records import Caller

    return Caller()


@contextmanager
def _rules() -> Generator[RuleService]:
    require_server()
    from app.jobs.rules import RuleService
    from app.refusals import Refused
    from coppice.commands.service import open_database

    with open_database() as (_settings, database):
        try:
            yield RuleService(database)
        except Refused as error:
            fail(error.message, ExitCode.BAD_INPUT)
