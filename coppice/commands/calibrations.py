"""``coppice calibrate`` and ``coppice calibrations``: what is known of a dense model, gathered once for many jobs."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.commands.here import cache_folder, computing, importing_core
from coppice.commands.sending import Name, Tags, asking, of_the_job, require_folders, with_uploads
from coppice.commands.waiting import Wait, follow
from coppice.commands.which import JobId, Url
from coppice.console import explained
from coppice.errors import JobUnsuccessful
from coppice.types import Calibration
from pruning_core.report.statistics import StatisticsReport
from pruning_core.spec.prune import PruneSpec

calibrations = typer.Typer(help="List, show and delete the calibrations of a service.", no_args_is_help=True)


@options.takes_job
def calibrate(
    job: options.JobOptions,
    statistics: Annotated[
        Path | None, typer.Option(help="Gather in this process, without a service, and keep it in this folder.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="With --statistics: cpu, cuda or cuda:1.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="With --statistics: CPU threads.")] = None,
    upload: Annotated[
        bool, typer.Option("--upload", help="Upload the folders of --model and --data, for a service on another host.")
    ] = False,
    name: Name = None,
    tag: Tags = None,
    wait: Wait = True,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Gather what is known of a dense model, once for jobs with any target. Targets are of no account here.

    Example: coppice calibrate --model org/name --task glue/sst2, then coppice prune ... --calibration cal_...
    """
    spec = job.to_spec(needs_target=False)
    if statistics is not None:
        _here(spec, statistics, job, device=device, threads=threads, json=json)
        return
    if upload:
        require_folders(spec)
    with explained(of_the_job(job.worded)), Client(url, api_key=key) as client:
        made = client.calibrate(asking(with_uploads(client, spec) if upload else spec, name=name, tags=tag or None))
        if not wait:
            typer.echo(made.model_dump_json() if json else made.id)
            return
        done = follow(client, client.get(made.id))
        if done.status != "succeeded":
            raise JobUnsuccessful(done)
        made = client.calibration(made.id)
    typer.echo(made.model_dump_json()) if json else _show(made)


def _here(
    spec: PruneSpec, folder: Path, job: options.JobOptions, *, device: str | None, threads: int | None, json: bool
) -> None:
    """Gather in this process."""
    with importing_core():
        from pruning_core.kept.folder import KeptFolder
        from pruning_core.run.pipeline import calibrate as gather
    with computing(lambda error: options.refuse(error, job)) as tell:
        found = gather(spec, KeptFolder(folder), device=device, threads=threads, cache=cache_folder(), on_progress=tell)
    typer.echo(found.model_dump_json()) if json else _show_pieces(found)


@calibrations.command("list")
def list_calibrations(
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """List calibrations, newest first."""
    with explained(), Client(url, api_key=key) as client:
        found = client.calibrations(limit=limit)
    if json:
        typer.echo(jsonlib.dumps([own.model_dump(mode="json") for own in found]))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "status", "MB", "jobs", "model", "task"):
        table.add_column(heading, no_wrap=True, overflow="ignore" if heading == "id" else "ellipsis")
    for own in found:
        model = console.escaped(console.plain(own.model.rstrip("/").rpartition("/")[2]))
        table.add_row(own.id, _status(own), f"{own.size / 1e6:.1f}", str(own.jobs_served), model, console.escaped(own.task))
    console.show_table(table)


@calibrations.command()
def show(calibration_id: JobId, url: Url = DEFAULT_URL, key: options.ApiKey = None, json: options.Json = False) -> None:
    """Show one calibration."""
    with explained(), Client(url, api_key=key) as client:
        found = client.calibration(calibration_id)
    typer.echo(found.model_dump_json()) if json else _show(found)


@calibrations.command()
def delete(calibration_id: JobId, url: Url = DEFAULT_URL, key: options.ApiKey = None) -> None:
    """Delete a calibration with its pieces. Jobs that name it and have not begun gather anew what they need."""
    with explained(), Client(url, api_key=key) as client:
        client.delete_calibration(calibration_id)
    console.out.print(f"{calibration_id}: deleted", highlight=False)


def _status(own: Calibration) -> str:
    return "freed" if own.status == "succeeded" and not own.kept else own.status


def _show(own: Calibration) -> None:
    console.out.print(f"{own.id}: {_status(own)}, {own.size / 1e6:.1f} MB, {own.jobs_served} jobs", highlight=False)
    for piece in own.pieces:
        console.out.print(f"  {piece.kind}: {piece.bytes / 1e6:.1f} MB, {piece.seconds:.1f} s", highlight=False)
    if own.error is not None:
        console.out.print(console.plain(f"{own.error.code}: {own.error.message}"), highlight=False, markup=False)


def _show_pieces(found: StatisticsReport) -> None:
    for piece in found.pieces:
        was = "was there" if piece.reused else "gathered"
        console.out.print(f"{piece.kind}: {was}, {piece.bytes / 1e6:.1f} MB, {piece.seconds:.1f} s", highlight=False)
