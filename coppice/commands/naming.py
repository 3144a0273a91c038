"""``coppice jobs rename`` and ``coppice jobs output``: what a job is called, and what it says."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.commands.remote import jobs
from coppice.commands.sending import of_the_job
from coppice.commands.which import JobId, Url, meant
from coppice.console import ExitCode, explained, fail, joined
from coppice.types import Job


@jobs.command()
def rename(
    job_id: JobId,
    name: Annotated[str | None, typer.Option(help="The new name; an empty one takes it away.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tags that it has from now on, in place of all; repeatable.")] = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Take all tags away.")] = False,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
) -> None:
    """Change what a job is called, whatever its status.

    Example: coppice jobs rename job_... --name "nightly, with repair" --tag release
    """
    change: dict[str, Any] = {} if name is None else {"name": name or None}
    change |= {"tags": []} if no_tags else {"tags": tag} if tag else {}
    if not change:
        fail("say what is to change: --name, --tag or --no-tags", ExitCode.BAD_INPUT)
    with explained(of_the_job(joined)), Client(url, api_key=key) as client, meant(client, job_id):
        _show(client.rename(job_id, **change))


@jobs.command()
def output(job_id: JobId, url: Url = DEFAULT_URL, key: options.ApiKey = None) -> None:
    """Show what a job's process has printed, and when its stages began."""
    with explained(), Client(url, api_key=key) as client, meant(client, job_id):
        console.out.print(console.plain(client.output(job_id)), highlight=False, markup=False, soft_wrap=True)


def _show(job: Job) -> None:
    """Print a job's id and what it is called."""
    called = " ".join([job.name or "has no name", *(f"#{tag}" for tag in job.tags)])
    console.out.print(console.plain(f"{job.id}: {called}"), highlight=False, markup=False, soft_wrap=True)
