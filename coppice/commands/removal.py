"""``coppice jobs delete``: the end of a job's report and files, too."""

from __future__ import annotations

from typing import Annotated

import typer

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.commands.remote import jobs
from coppice.commands.which import JobId, Url, meant
from coppice.console import explained
from coppice.errors import ApiError

_ENDED = "already_finished"


@jobs.command()
def delete(
    job_id: JobId,
    cancel: Annotated[bool, typer.Option("--cancel", help="If it has not ended, cancel it first and wait for that.")] = False,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
) -> None:
    """Delete a job with its events, report and files. It cannot be undone."""
    with explained(), Client(url, api_key=key) as client, meant(client, job_id):
        if cancel:
            _end(client, job_id)
        client.delete(job_id)
    console.out.print(f"{job_id}: deleted", highlight=False)


def _end(client: Client, job_id: str) -> None:
    if client.get(job_id).finished:
        return
    try:
        client.cancel(job_id)
    except ApiError as error:
        if error.code != _ENDED:  # it may have ended since we looked
            raise
    client.wait(job_id)
