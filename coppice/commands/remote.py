"""Commands that talk to a service: ``prune``, ``report`` and ``jobs``."""

from __future__ import annotations

import json as jsonlib
import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.conditions import Condition, parse
from coppice.console import ExitCode, explained, fail, progress_bar
from coppice.errors import JobUnsuccessful
from coppice.types import Job, Plan
from pruning_core.report import Report

Url = Annotated[str, typer.Option(envvar="COPPICE_URL", help="Where the service is.")]

jobs = typer.Typer(help="Look at jobs of a service, and cancel them.", no_args_is_help=True)


def prune(
    out: Annotated[Path | None, typer.Option(help="Folder for the downloaded bundle; must not exist, or be empty.")] = None,
    model: options.Model = None,
    task: options.Task = None,
    data: options.Data = None,
    sparsity: options.Sparsity = None,
    macs_keep: options.MacsKeep = None,
    params_keep: options.ParamsKeep = None,
    latency_keep: options.LatencyKeep = None,
    quality_floor: options.QualityFloor = None,
    layout: options.Layout = None,
    formats: options.Formats = None,
    method: options.Method = None,
    samples: options.Samples = None,
    seed: options.Seed = None,
    spec: options.SpecFile = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end and download; otherwise print the job and leave.")] = True,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would come of it, and submit nothing.")] = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Leave with exit code 4 where this holds of the report, e.g. 'drop>0.01'; repeatable."),
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="An id of your own: submitting it again is submitting it once.")] = None,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Have a service prune a model: submit, wait with a progress bar, download. Exit code 0 only on success.

    Example: coppice prune --model org/name --task glue/sst2 --sparsity 0.5 --out ./bundle --fail-if 'drop>0.01'
    """
    conditions = _conditions(fail_if or [])
    if wait and not plan and out is None:
        fail("give --out, the folder for the bundle, or --no-wait", ExitCode.BAD_INPUT)
    if conditions and (plan or not wait):
        fail("--fail-if judges the report, so it needs --wait", ExitCode.BAD_INPUT)
    with explained():
        built = options.build_spec(
            spec,
            model=model,
            task=task,
            data=data,
            sparsity=sparsity,
            macs_keep=macs_keep,
            params_keep=params_keep,
            latency_keep=latency_keep,
            quality_floor=quality_floor,
            layout=layout,
            formats=formats,
            method=method,
            samples=samples,
            seed=seed,
        )
        if out is not None and job_id is None:  # with an id of its own it may be called again, and goes on downloading
            options.require_free(out)
        with Client(url, api_key=key) as client:
            if plan:
                _show_plan(client.plan(built), json)
                return
            job = client.submit(built, job_id=job_id)
            console.err.print(f"job {job.id}", highlight=False)
            if not wait:
                typer.echo(job.model_dump_json() if json else job.id)
                return
            try:
                job = follow(client, job)
            except KeyboardInterrupt:
                console.err.print(f"left running; cancel it with: coppice jobs cancel {job.id} --url {url}")
                raise
            if job.status != "succeeded":
                raise JobUnsuccessful(job)
            assert out is not None
            fetch(client, job, out)
            found = client.report(job.id)
    if json:
        typer.echo(result_document(job, out, found))
    else:
        console.show(found)
        console.out.print(f"bundle: {out}", soft_wrap=True, highlight=False)
    _judge(conditions, found)


def report(
    job_id: str,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page of the report in a browser.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the page of the report to this file.")] = None,
    fail_if: Annotated[list[str] | None, typer.Option(help="As of prune; repeatable.")] = None,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Show the report of a finished job: a table, JSON, or a page in a browser.

    Example: coppice report job_... --open
    """
    conditions = _conditions(fail_if or [])
    with explained(), Client(url, api_key=key) as client:
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
    _judge(conditions, found)


def _conditions(texts: list[str]) -> list[Condition]:
    try:
        return [parse(text) for text in texts]
    except ValueError as error:
        fail(str(error), ExitCode.BAD_INPUT)


def _judge(conditions: list[Condition], report: Report) -> None:
    held = [
        f"{condition} ({condition.figure} is {condition.value(report):.6g})"
        for condition in conditions
        if condition.holds(report)
    ]
    if held:
        fail(f"what must not be is: {'; '.join(held)}", ExitCode.CONDITION_HOLDS)


def _show_plan(plan: Plan, json: bool) -> None:
    if json:
        typer.echo(plan.model_dump_json())
    elif plan.predicted is None:
        console.out.print("the service would accept it; nothing is known of the model's size yet")
    else:
        sizes = plan.predicted
        console.out.print(
            f"the service would accept it: about {sizes.parameters.pruned / 1e6:.1f} M of {sizes.parameters.dense / 1e6:.1f} M "
            f"parameters, {sizes.bytes.pruned / 1e6:.1f} MB of weights, {sizes.seconds:.0f} s and "
            f"{sizes.memory_bytes / 2**30:.1f} GiB of memory",
            highlight=False,
            soft_wrap=True,
        )


def follow(client: Client, job: Job) -> Job:
    """Wait for a job with a progress bar."""
    with progress_bar() as bar:
        line = bar.add_task("queued", total=1.0)

        def tell(now: Job) -> None:
            stage = now.progress.stage if now.progress is not None and not now.finished else now.status
            fraction = 1.0 if now.status == "succeeded" else now.progress.fraction if now.progress is not None else 0.0
            bar.update(line, completed=fraction, description=stage)

        return client.wait(job.id, tell)


def result_document(job: Job, bundle: Path, report: Report) -> str:
    """Give the one JSON document that a finished job is reported with."""
    result = {
        "status": job.status,
        "job_id": job.id,
        "bundle": str(bundle.absolute()),
        "report": report.model_dump(mode="json"),
    }
    return jsonlib.dumps(result)


def fetch(client: Client, job: Job, folder: Path) -> None:
    """Download a bundle with a progress bar."""
    with progress_bar() as bar:
        line = bar.add_task("download", total=None)
        client.download(job.id, folder, lambda done, total: bar.update(line, completed=done, total=total))


@jobs.command("list")
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="Only these; repeat the option.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE: only jobs with it; repeat the option.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """List jobs, newest first."""
    pairs = [pair.partition("=") for pair in metadata or []]
    if not all(equals for _name, equals, _value in pairs):
        fail("--metadata must be KEY=VALUE", ExitCode.BAD_INPUT)
    wanted = {name: value for name, _equals, value in pairs}
    with explained(), Client(url, api_key=key) as client:
        found = client.list(statuses=status or [], metadata=wanted, limit=limit)
    if json:
        typer.echo(jsonlib.dumps([job.model_dump(mode="json") for job in found]))
        return
    table = Table()
    for heading in ("id", "status", "progress", "model", "task", "created"):
        table.add_column(heading, no_wrap=heading in ("id", "status"))  # what people copy stays in one piece
    for job in found:
        progress = f"{job.progress.fraction:.0%}" if job.progress is not None else ""
        task = job.spec["task"]["name"] or job.spec["task"]["type"]
        model = str(job.spec["model"]).rpartition("/")[2]
        table.add_row(job.id, job.status, progress, model, task, job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    console.out.print(table)


@jobs.command()
def show(job_id: str, url: Url = DEFAULT_URL, key: options.ApiKey = None, json: options.Json = False) -> None:
    """Show one job; with its report once it has succeeded."""
    with explained(), Client(url, api_key=key) as client:
        job = client.get(job_id)
        found = client.report(job_id) if job.status == "succeeded" else None
    if json:
        typer.echo(job.model_dump_json())
        return
    console.out.print(f"{job.id}: {job.status}", highlight=False)
    if job.error is not None:
        console.out.print(f"{job.error.code}: {job.error.message}", highlight=False, markup=False)
    if job.progress is not None and not job.finished:
        console.out.print(f"{job.progress.stage}, {job.progress.fraction:.0%}", highlight=False)
    if found is not None:
        console.show(found)


@jobs.command()
def cancel(job_id: str, url: Url = DEFAULT_URL, key: options.ApiKey = None) -> None:
    """Cancel a job and wait until it has ended."""
    with explained(), Client(url, api_key=key) as client:
        client.cancel(job_id)
        job = client.wait(job_id)
    console.out.print(f"{job.id}: {job.status}", highlight=False)
    raise typer.Exit(ExitCode.OK if job.status == "cancelled" else ExitCode.JOB_FAILED)


@jobs.command()
def retry(job_id: str, url: Url = DEFAULT_URL, key: options.ApiKey = None) -> None:
    """Have a failed job tried again."""
    with explained(), Client(url, api_key=key) as client:
        job = client.retry(job_id)
    console.out.print(f"{job.id}: {job.status}", highlight=False)


@jobs.command()
@jobs.command("events", hidden=True)
def logs(
    job_id: str,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has finished.")] = False,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")] = False,
) -> None:
    """Show what has happened to a job, and with --follow what is happening."""
    with explained(), Client(url, api_key=key) as client:
        for event in client.follow(job_id) if follow else client.events(job_id):
            if json:
                typer.echo(event.model_dump_json())
                continue
            data = jsonlib.dumps(event.data) if event.data else ""
            line = f"{event.created_at.astimezone():%H:%M:%S} {event.type} {data}"
            console.out.print(line, highlight=False, markup=False, soft_wrap=True)
