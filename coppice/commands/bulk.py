"""``coppice jobs cancel-all`` and ``retry-all``: many jobs by a filter."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.commands.remote import jobs
from coppice.commands.sending import metadata_of
from coppice.commands.which import Url
from coppice.console import explained, joined

Model = Annotated[str | None, typer.Option(help="Only jobs of this model, as they named it.")]
Metadata = Annotated[list[str] | None, typer.Option(help="KEY=VALUE: only jobs with this metadata; repeatable.")]
Tenant = Annotated[str | None, typer.Option(help="Jobs of this tenant: needs a key with the scope admin besides jobs:write.")]
All = Annotated[bool, typer.Option("--all", help="All jobs, where no other option says which.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many jobs are like that.")]


@jobs.command("cancel-all")
def cancel_all(
    status: Annotated[list[str] | None, typer.Option(help="queued or running; repeatable. Default: both.")] = None,
    model: Model = None,
    metadata: Metadata = None,
    tenant: Tenant = None,
    everything: All = False,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
) -> None:
    """Cancel all jobs of a kind that wait or run. It asks for their end and does not wait for it.

    Example: coppice jobs cancel-all --metadata sweep=7 --dry-run
    """
    wanted = _wanted(model, metadata, tenant, everything) | ({"status": status} if status else {})
    with explained(_worded), Client(url, api_key=key) as client:
        done = client.cancel_all(dry_run=dry_run, **wanted)
    _say("cancelled", done.matched, done.changed, dry_run)


@jobs.command("retry-all")
def retry_all(
    model: Model = None,
    metadata: Metadata = None,
    tenant: Tenant = None,
    everything: All = False,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
) -> None:
    """Ask for another try of all failed jobs of a kind, as many as may wait."""
    with explained(_worded), Client(url, api_key=key) as client:
        done = client.retry_all(dry_run=dry_run, **_wanted(model, metadata, tenant, everything))
    _say("queued again", done.matched, done.changed, dry_run)


def _wanted(model: str | None, metadata: list[str] | None, tenant: str | None, everything: bool) -> dict[str, Any]:
    given = {"model": model, "tenant": tenant, "metadata": metadata_of(metadata), "all": everything}
    return {name: value for name, value in given.items() if value}


def _worded(field: str, message: str) -> str:
    """Speak of the command's options where the service speaks of fields."""
    name = field.partition(".")[0]
    return joined(f"--{name}" if name else "", message.replace("must be true", "must be given"))


def _say(what: str, matched: int, changed: int, dry_run: bool) -> None:
    jobs_are = "job is" if matched == 1 else "jobs are"
    said = f"{matched} {jobs_are} like that; nothing was changed" if dry_run else f"{changed} of {matched} {what}"
    console.out.print(said, highlight=False)
