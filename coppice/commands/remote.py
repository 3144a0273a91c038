"""Commands that talk to a service: ``prune`` and ``jobs``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.console import ExitCode, explained, fail, progress_bar
from coppice.types import Job
from pruning_core.report import Report

Url = Annotated[str, typer.Option(envvar="COPPICE_URL", help="Where the service is.")]

jobs = typer.Typer(help="Look at jobs of a service, and cancel them.", no_args_is_help=True)


def prune(
    out: Annotated[Path, typer.Option(help="Folder for the downloaded bundle; must not exist, or be empty.")],
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
    url: Url = DEFAULT_URL,
    json: options.Json = False,
) -> None:
    """Have a service prune a model: submit, wait with a progress bar, download. Exit code 0 only on success.

    Example: coppice prune --model org/name --task glue/sst2 --sparsity 0.5 --out ./bundle
    """
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
        options.require_free(out)
        with Client(url) as client:
            job = client.submit(built)
            console.err.print(f"job {job.id}", highlight=False)
            try:
                job = follow(client, job)
            except KeyboardInterrupt:
                console.err.print(f"left running; cancel it with: coppice jobs cancel {job.id} --url {url}")
                raise
            if job.status != "succeeded":
                _ended_badly(job)
            fetch(client, job, out)
            report = client.report(job.id)
    if json:
        typer.echo(result_document(job, out, report))
    else:
        console.show(report)
        console.out.print(f"bundle: {out}", soft_wrap=True, highlight=False)


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
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    url: Url = DEFAULT_URL,
    json: options.Json = False,
) -> None:
    """List jobs, newest first."""
    with explained(), Client(url) as client:
        found = client.list(statuses=status or [], limit=limit)
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
def show(job_id: str, url: Url = DEFAULT_URL, json: options.Json = False) -> None:
    """Show one job; with its report once it has succeeded."""
    with explained(), Client(url) as client:
        job = client.get(job_id)
        report = client.report(job_id) if job.status == "succeeded" else None
    if json:
        typer.echo(job.model_dump_json())
        return
    console.out.print(f"{job.id}: {job.status}", highlight=False)
    if job.error is not None:
        console.out.print(f"{job.error.code}: {job.error.message}", highlight=False, markup=False)
    if job.progress is not None and not job.finished:
        console.out.print(f"{job.progress.stage}, {job.progress.fraction:.0%}", highlight=False)
    if report is not None:
        console.show(report)


@jobs.command()
def cancel(job_id: str, url: Url = DEFAULT_URL) -> None:
    """Cancel a job and wait until it has ended."""
    with explained(), Client(url) as client:
        client.cancel(job_id)
        job = client.wait(job_id)
    console.out.print(f"{job.id}: {job.status}", highlight=False)
    raise typer.Exit(ExitCode.OK if job.status == "cancelled" else ExitCode.JOB_FAILED)


@jobs.command()
def events(job_id: str, url: Url = DEFAULT_URL, json: options.Json = False) -> None:
    """Show what has happened to a job."""
    with explained(), Client(url) as client:
        found = list(client.events(job_id))
    if json:
        typer.echo(jsonlib.dumps([event.model_dump(mode="json") for event in found]))
        return
    for event in found:
        data = jsonlib.dumps(event.data) if event.data else ""
        console.out.print(f"{event.created_at.astimezone():%H:%M:%S} {event.type} {data}", highlight=False, markup=False)


def _ended_badly(job: Job) -> NoReturn:
    if job.error is None:
        fail(f"the job was {job.status}", ExitCode.JOB_FAILED)
    where = f"{job.error.param}: " if job.error.param else ""
    fail(f"the job {job.status}: {where}{job.error.message} ({job.error.code})", ExitCode.JOB_FAILED)
