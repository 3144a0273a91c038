"""Which job of which service: the options that say so, and what is meant where there is no such job."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated

import typer

from coppice.client import Client
from coppice.errors import ApiError, CoppiceError

Url = Annotated[str, typer.Option(envvar="COPPICE_URL", help="Address of the service.")]

JOB_ID = re.compile(r"[A-Za-z0-9_\-]{1,64}", re.ASCII)
_LOOKED_THROUGH = 200  # newest jobs, for an id that is nearly one of theirs
_LIKENESS = 0.85


def _is_id(text: str) -> str:
    if JOB_ID.fullmatch(text) is None:
        raise typer.BadParameter("a job's id is 1 to 64 letters, digits, - and _; coppice jobs list shows them")
    return text


JobId = Annotated[str, typer.Argument(callback=_is_id, help="Id of the job, as coppice jobs list shows it.")]


@contextmanager
def meant(client: Client, job_id: str) -> Generator[None]:
    """Name the job whose id is nearest, where there is none of this one."""
    try:
        yield
    except ApiError as error:
        if error.code != "job_not_found":
            raise
        ids: list[str] = []
        with suppress(CoppiceError):
            ids = [job.id for job in client.list(limit=_LOOKED_THROUGH)]
        alike = [one for one in ids if one.startswith(job_id)] or get_close_matches(job_id, ids, n=3, cutoff=_LIKENESS)
        advice = f"did you mean {' or '.join(alike[:3])}?" if alike else "coppice jobs list shows those that there are"
        raise replace(error, detail=f"there is no job {job_id} here; {advice}") from error
