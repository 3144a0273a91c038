"""Commands that talk to a service: ``prune``, ``report`` and ``jobs``."""

from __future__ import annotations

import json as jsonlib
import tempfile
import webbrowser
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.table import Table

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options, places
from coppice.commands.sending import Name, Tags, asking, metadata_of, of_the_job, require_folders, with_uploads
from coppice.commands.waiting import (
    BundleFolder,
    FailIf,
    PlanOnly,
    Wait,
    check_conditions,
    conditions_of,
    judge,
    nobody,
    require_bundle_folder,
    see_through,
    show_ended,
    show_plan,
    status_of,
)
from coppice.commands.which import JobId, Url, meant
from coppice.console import ExitCode, explained
from coppice.types import Job

# What stands beside an id in one line: status, share done, age, and room for the beginnings of model and task.
_STATUS_AND_AGE = 2 + 10 + 2 + 4 + 2 + 4
_BESIDE_IDS = _STATUS_AND_AGE + 2 + 9 + 2 + 7
_CALLED = 2 + 16  # and of the beginning of a name

jobs = typer.Typer(help="List, show, follow, cancel, retry and delete the jobs of a service.", no_args_is_help=True)


@options.takes_job
def prune(
    job: options.JobOptions,
    out: BundleFolder = None,
    upload: Annotated[
        bool, typer.Option("--upload", help="Upload the folders of --model and --data, for a service on another host.")
    ] = False,
    wait: Wait = True,
    plan: PlanOnly = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Exit with code 4 if this condition holds of the report, e.g. 'drop>0.01'; repeatable."),
    ] = None,
    job_id: Annotated[
        str | None, typer.Option(help="An id of your own choice; submitting it again makes no second job.")
    ] = None,
    name: Name = None,
    tag: Tags = None,
    worker_device: Annotated[
        str | None, typer.Option(help="Class of device that the worker must have: cpu or cuda; default: any.")
    ] = None,
    worker_tag: Annotated[list[str] | None, typer.Option(help="Tag that the worker must have; repeatable.")] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="Crashes after which the job has failed.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Calibration to start from (coppice calibrate): its id, cal_...")
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option(help="Longest time of one attempt in seconds; one that takes longer has failed.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Have a service prune a model: submit, wait with a progress bar, download. Exit code 0 only on success.

    Example: coppice prune --model org/name --task glue/sst2 --sparsity 0.5 --out ./bundle --fail-if 'drop>0.01'

    A drop may be chance: --fail-if 'surely_worse>0.01' fails if all of the 95 % interval is worse than that, and
    'may_be_worse>0.01' if any of it is.
    """
    conditions = conditions_of(fail_if or [])
    require_bundle_folder(out, conditions, wait=wait, plan=plan)
    spec = job.to_spec()
    check_conditions(conditions, spec)
    if out is not None:
        # With --job-id the command may be repeated, and goes on downloading.
        places.require_free(out, may_hold_files=job_id is not None)
    if upload:
        require_folders(spec)
    with explained(of_the_job(job.worded)), Client(url, api_key=key) as client:
        spec = with_uploads(client, spec) if upload else spec
        given = {"name": name, "tags": tag or None, "max_attempts": max_attempts, "timeout_s": timeout_s}
        request = asking(spec, device=worker_device, worker_tags=worker_tag, **given, calibration_id=calibration)
        if plan:
            show_plan(client.plan(request), lambda warning: job.worded("", warning), json=json)
            return
        submitted = client.submit(request, job_id=job_id)
        ended = see_through(client, submitted, out, wait=wait, url=url, json=json)
    if ended is not None:
        show_ended(ended, conditions, json=json)


def report(
    job_id: JobId,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page of the report in a browser.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the page of the report to this file.")] = None,
    fail_if: FailIf = None,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Show the report of a finished job: a table, JSON, or a page in a browser.

    Example: coppice report job_... --open
    """
    conditions = conditions_of(fail_if or [])
    if out is not None:
        places.require_writable(out)
    with explained(), Client(url, api_key=key) as client, meant(client, job_id):
        found = client.report(job_id)
        page = client.report_page(job_id) if open_page or out is not None else ""
    if json:
        typer.echo(found.model_dump_json())
    else:
        console.show(found)
    if page:
        target = out or Path(tempfile.mkdtemp(prefix="coppice-report-")) / f"{job_id}.html"
        target.write_text(page, encoding="utf-8")
        console.err.print(f"page: {target}", soft_wrap=True, highlight=False)
        if open_page:
            webbrowser.open(target.absolute().as_uri())
    judge(conditions, found)


@jobs.command("list")
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="Only jobs of this status; repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs with this in their names.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only jobs with this tag; repeatable.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE: only jobs with this metadata; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """List jobs, newest first."""
    wanted = metadata_of(metadata)
    with explained(), Client(url, api_key=key) as client:
        found = client.list(statuses=status or [], metadata=wanted, name=name, tags=tag or [], limit=limit)
    if json:
        typer.echo(jsonlib.dumps([job.model_dump(mode="json") for job in found]))
        return
    _show(found)


def _show(found: list[Job]) -> None:
    """Show jobs: one a line, with names shortened, or in some lines each where the terminal is too narrow."""
    longest, are_named = max((len(job.id) for job in found), default=0), any(job.name or job.tags for job in found)
    if console.out.is_terminal and console.out.width < longest + _BESIDE_IDS + (_CALLED if are_named else 0):
        for job in found:
            model, task = _names(job)
            console.out.print(f"[bold]{job.id}[/] {job.status}", highlight=False, soft_wrap=True)
            if called := _called(job):
                console.out.print(f"  {called}", highlight=False, markup=False, no_wrap=True, overflow="ellipsis")
            facts = [model, task, _done(job), f"{_age(job.created_at)} ago"]
            console.out.print(
                f"  {', '.join(filter(None, facts))}", highlight=False, markup=False, no_wrap=True, overflow="ellipsis"
            )
        return
    named = {"name": [_called(job) for job in found]} if are_named else {}
    models, tasks = zip(*map(_names, found), strict=True) if found else ((), ())
    loose: dict[str, Sequence[str]] = {**named, "model": models, "task": tasks}
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "status", "done", "age"):
        table.add_column(heading, no_wrap=True, overflow="ignore")
    for heading, width in zip(loose, _widths(list(loose.values()), longest), strict=True):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=5, max_width=width)
    for job, *texts in zip(found, *loose.values(), strict=True):
        table.add_row(job.id, job.status, _done(job), _age(job.created_at), *map(console.escaped, texts))
    console.show_table(table)


def _widths(columns: Sequence[Sequence[str]], longest: int) -> list[int | None]:
    """Share what the ids leave of a line among columns, none of which gets more than it needs. In a pipe there is room."""
    if not console.out.is_terminal:
        return [None] * len(columns)
    needs = [max(map(cell_len, column), default=0) for column in columns]
    left, widths = console.out.width - longest - _STATUS_AND_AGE - 2 * len(columns), dict.fromkeys(range(len(columns)), 5)
    for place, own in enumerate(order := sorted(widths, key=needs.__getitem__)):
        widths[own] = max(5, min(needs[own], left // (len(order) - place)))
        left -= widths[own]
    return [widths[own] for own in range(len(columns))]


def _called(job: Job) -> str:
    """Return a job's name and tags in one line; empty where it has neither."""
    return console.plain(" ".join([job.name or "", *(f"#{tag}" for tag in job.tags)]).strip())


def _names(job: Job) -> tuple[str, str]:
    task = job.spec["task"]["name"] or job.spec["task"]["type"]
    return console.plain(str(job.spec["model"]).rstrip("/").rpartition("/")[2]), console.plain(task)


def _done(job: Job) -> str:
    return f"{job.progress.fraction:.0%}" if job.progress is not None else ""


def _age(moment: datetime) -> str:
    """Return how long ago a moment was, in one unit."""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


@jobs.command()
def show(job_id: JobId, url: Url = DEFAULT_URL, key: options.ApiKey = None, json: options.Json = False) -> None:
    """Show one job, and its report once it has succeeded."""
    with explained(), Client(url, api_key=key) as client, meant(client, job_id):
        job = client.get(job_id)
        found = client.report(job_id) if job.status == "succeeded" else None
    if json:
        typer.echo(job.model_dump_json())
        return
    console.out.print(f"{job.id}: {status_of(job)}", highlight=False)
    if called := _called(job):
        console.out.print(called, highlight=False, markup=False, soft_wrap=True)
    if job.queue is not None:
        waits = f"waits for a worker for {_age(job.created_at)}; {job.queue.workers} signed in"
        console.out.print(waits, highlight=False)
        if job.queue.paused:
            console.note("the queue is paused by whoever runs the service; nothing is taken until they open it")
        if not job.queue.workers:
            console.note(nobody(job.queue))
        elif job.queue.why is not None:
            console.note(job.queue.why)
    if job.error is not None:
        console.out.print(console.plain(f"{job.error.code}: {job.error.message}"), highlight=False, markup=False)
    if job.progress is not None and not job.finished:
        console.out.print(f"{job.progress.stage}, {job.progress.fraction:.0%}", highlight=False)
    if found is not None:
        console.show(found)


@jobs.command()
def cancel(job_id: JobId, url: Url = DEFAULT_URL, key: options.ApiKey = None) -> None:
    """Cancel a job and wait until it has ended."""
    with explained(), Client(url, api_key=key) as client, meant(client, job_id):
        client.cancel(job_id)
        job = client.wait(job_id)
    console.out.print(f"{job.id}: {job.status}", highlight=False)
    raise typer.Exit(ExitCode.OK if job.status == "cancelled" else ExitCode.JOB_FAILED)


@jobs.command()
def retry(job_id: JobId, url: Url = DEFAULT_URL, key: options.ApiKey = None) -> None:
    """Ask for another try of a failed job."""
    with explained(), Client(url, api_key=key) as client, meant(client, job_id):
        job = client.retry(job_id)
    console.out.print(f"{job.id}: {job.status}", highlight=False)


@jobs.command()
@jobs.command("events", hidden=True)
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has finished.")] = False,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document per line.")] = False,
) -> None:
    """Show the events of a job so far, and with --follow those to come."""
    with explained(), Client(url, api_key=key) as client, meant(client, job_id):
        for event in client.follow(job_id) if follow else client.events(job_id):
            if json:
                typer.echo(event.model_dump_json())
                continue
            data = jsonlib.dumps(event.data) if event.data else ""
            line = f"{event.created_at.astimezone():%H:%M:%S} {event.type} {data}"
            console.out.print(line, highlight=False, markup=False, soft_wrap=True)
