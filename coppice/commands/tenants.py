"""``coppice tenants``: what an operator does with tenants, in the service's database or, with ``--url``, over HTTP."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.text import Text

from coppice import console
from coppice.client import Client
from coppice.commands import options
from coppice.commands.keys import Url
from coppice.console import ExitCode, explained, fail
from coppice.installation import require_server
from coppice.types import Tenant, TenantDeletion

tenants = typer.Typer(
    help="List tenants, set their shares, delete them: on the service's host with the service's settings, elsewhere with --url "
    "and a key that has the scope admin.",
    no_args_is_help=True,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}", re.ASCII)
_LOOK_EVERY_S = 1.0
_WORK_S = 2.0


def _is_name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise typer.BadParameter("a tenant's name is 1 to 64 letters, digits, _ . and -; coppice keys list shows them")
    return text


@tenants.command("list")
def list_tenants(url: Url = None, key: options.ApiKey = None, json: options.Json = False) -> None:
    """List all tenants: jobs by status, bytes that are kept, valid keys, share of the turns, and jobs that may run at once."""
    with explained():
        if url is not None:
            with Client(url, api_key=key) as client:
                found = client.tenants()
        else:
            found = _list_here()
    if json:
        typer.echo(f"[{', '.join(item.model_dump_json() for item in found)}]")
        return
    rows = [
        (
            item.tenant + (" (being deleted)" if item.deleting else ""),
            ", ".join(f"{number:,} {status}" for status, number in item.jobs.items()),
            f"{item.artifact_bytes / 1e6:,.1f} MB",
            f"{item.upload_bytes / 1e6:,.1f} MB",
            str(item.keys),
            f"{item.share:g}",
            str(item.max_running or ""),
        )
        for item in found
    ]
    headings = ("tenant", "jobs", "files", "uploads", "keys", "share", "at once")
    console.show_rows(headings, [[Text(console.plain(cell)) for cell in row] for row in rows])


def _list_here() -> list[Tenant]:
    require_server()
    from app.operations.overview import TenantList
    from app.operations.schemas import TenantView
    from coppice.commands.service import open_database

    with open_database() as (_settings, database):
        return [Tenant.model_validate(TenantView.of(one).model_dump(mode="json")) for one in TenantList(database).read()]


@tenants.command()
def delete(
    tenant: Annotated[str, typer.Argument(callback=_is_name, help="Name of the tenant.")],
    with_audit: Annotated[
        bool, typer.Option("--with-audit", help="Delete the audit log's lines of what the tenant did, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Delete a tenant for ever: jobs, files, uploads, webhooks, keys, sessions. It cannot be undone.

    The tenant's keys are worthless at once, and its jobs are cancelled. Running ones are waited for: interrupted with Ctrl-C,
    the workers go on by themselves, and the same command shows how far they are.
    """
    if not yes:
        typer.confirm(f"Delete {tenant} with all jobs, files, uploads, webhooks and keys, for ever?", abort=True, err=True)
    with explained():
        if url is not None:
            with Client(url, api_key=key) as client:
                done = _follow(lambda: client.delete_tenant(tenant, with_audit=with_audit))
        else:
            done = _delete_here(tenant, with_audit)
    if json:
        typer.echo(done.model_dump_json())
        return
    counts = ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in done.deleted.items())
    console.out.print(f"{tenant}: deleted, with {counts}", highlight=False, soft_wrap=True)


def _follow(ask: Callable[[], TenantDeletion]) -> TenantDeletion:
    """Ask until the deletion has ended, and say what it waits for."""
    said = 0
    while (state := ask()).finished_at is None:
        if state.running and state.running != said:
            said = state.running
            console.note(f"{said} of its jobs still {'has a worker' if said == 1 else 'have workers'}, which end them")
        time.sleep(_LOOK_EVERY_S)
    return state


def _delete_here(tenant: str, with_audit: bool) -> TenantDeletion:
    require_server()
    from app.keys.records import Caller
    from app.operations.schemas import TenantDeletionView
    from app.refusals import NotFound
    from coppice.commands.service import open_tenants

    with open_tenants() as service:

        def ask() -> TenantDeletion:
            state = service.delete(tenant, with_audit=with_audit, caller=Caller(), for_s=_WORK_S)
            return TenantDeletion.model_validate(TenantDeletionView.of(state).model_dump())

        try:
            return _follow(ask)
        except NotFound as error:
            fail(error.message, ExitCode.BAD_INPUT)
