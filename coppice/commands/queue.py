"""``coppice queue``: pause, drain and resume the queue, in the service's database or, with ``--url``, over HTTP."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import typer

from coppice import console
from coppice.client import Client
from coppice.commands import options
from coppice.commands.keys import Url
from coppice.console import explained
from coppice.installation import require_server
from coppice.types import QueueControl

queue = typer.Typer(
    help="Pause, drain and resume the queue: on the service's host with the service's settings, elsewhere with --url and a key "
    "that has the scope admin.",
    no_args_is_help=True,
)

_Action = Literal["pause", "drain", "resume"]
_LOOK_EVERY_S = 1.0


@queue.command()
def show(url: Url = None, key: options.ApiKey = None, json: options.Json = False) -> None:
    """Show whether jobs are taken, and how many run and wait, of all tenants."""
    _say(_ask(None, url, key), json=json)


@queue.command()
def pause(url: Url = None, key: options.ApiKey = None, json: options.Json = False) -> None:
    """Take no job any more. What runs goes on; submits are accepted and wait."""
    _say(_ask("pause", url, key), json=json)


@queue.command()
def drain(
    wait: Annotated[bool, typer.Option(help="Wait until nothing runs any more.")] = True,
    url: Url = None,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Take no job any more, and wait until none runs: then workers can be stopped without stopping a job."""
    found = _ask("drain", url, key)
    said = 0
    while wait and not found.drained and found.state == "draining":
        if found.running != said:
            said = found.running
            console.note(f"{said} {'job runs' if said == 1 else 'jobs run'}")
        time.sleep(_LOOK_EVERY_S)
        found = _ask(None, url, key)
    _say(found, json=json)


@queue.command()
def resume(url: Url = None, key: options.ApiKey = None, json: options.Json = False) -> None:
    """Take jobs again."""
    _say(_ask("resume", url, key), json=json)


def _ask(action: _Action | None, url: str | None, key: str | None) -> QueueControl:
    with explained():
        if url is not None:
            with Client(url, api_key=key) as client:
                return client.queue(action)
        return _ask_here(action)


def _ask_here(action: _Action | None) -> QueueControl:
    require_server()
    from app.jobs.control import QueueState
    from app.keys.records import Caller
    from app.operations.queue import QueueControl as Queue
    from app.operations.schemas import QueueControlView
    from coppice.commands.service import open_database

    states = {"pause": QueueState.PAUSED, "drain": QueueState.DRAINING, "resume": QueueState.OPEN}
    with open_database() as (_settings, database):
        own = Queue(database)
        found = own.read() if action is None else own.set(states[action], caller=Caller())
    return QueueControl.model_validate(QueueControlView.of(found).model_dump())


def _say(found: QueueControl, *, json: bool) -> None:
    if json:
        typer.echo(found.model_dump_json())
        return
    nothing = "; nothing runs any more" if found.drained else ""
    console.out.print(f"{found.state}: {found.running} running, {found.waiting} waiting{nothing}", highlight=False)
