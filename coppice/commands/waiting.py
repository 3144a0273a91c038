"""Waiting for a job of a service: its end, its bundle, its report, and what is judged of it."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from coppice import console
from coppice.client import Client
from coppice.conditions import Condition, NotJudged, check_sets, parse
from coppice.console import ExitCode, fail, progress
from coppice.errors import JobUnsuccessful
from coppice.types import Job, JobPrediction, JobQueue
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec

_NO_WORKER = (
    "no worker is signed in at the service, so that nothing runs; whoever runs it starts one with coppice worker "
    "(coppice serve brings its own)"
)


Wait = Annotated[bool, typer.Option(help="Wait for the job's end and download the bundle; otherwise print the job and exit.")]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Print the predicted size, memory and time, and submit nothing.")]
BundleFolder = Annotated[Path | None, typer.Option(help="Folder for the downloaded bundle; must not exist, or be empty.")]
FailIf = Annotated[list[str] | None, typer.Option(help="Condition, as for coppice prune; repeatable.")]


def require_bundle_folder(out: Path | None, conditions: list[Condition], *, wait: bool, plan: bool) -> None:
    """End the command where options of what becomes of a job do not go together."""
    if wait and not plan and out is None:
        fail("give --out, the folder for the bundle, or --no-wait", ExitCode.BAD_INPUT)
    if conditions and (plan or not wait):
        fail("--fail-if judges the report, so it needs --wait", ExitCode.BAD_INPUT)


def see_through(client: Client, submitted: Job, out: Path | None, *, wait: bool, url: str, json: bool) -> Ended | None:
    """Tell of a submitted job, and wait for its bundle; None where it is not to be waited for."""
    console.err.print(f"job {submitted.id}", highlight=False)
    if not wait:
        show_submitted(submitted, json=json)
        return None
    assert out is not None, "options without a folder were refused"
    return bundle_of(client, submitted, out, url=url)


def show_ended(ended: Ended, conditions: list[Condition], *, json: bool) -> None:
    """Print what a finished job has made, and end the command with an exit code of its own where a condition holds."""
    if json:
        typer.echo(result_document(ended.job, ended.bundle, ended.report))
    else:
        console.show(ended.report)
        console.out.print(f"bundle: {ended.bundle}", soft_wrap=True, highlight=False)
    judge(conditions, ended.report)


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has succeeded, the folder that its bundle was downloaded to, and its report."""

    job: Job
    bundle: Path
    report: Report


def show_submitted(submitted: Job, *, json: bool) -> None:
    """Print a job that is not waited for, and why nobody serves it where that is so."""
    if submitted.queue is not None and not submitted.queue.workers:
        console.note(nobody(submitted.queue))
    typer.echo(submitted.model_dump_json() if json else submitted.id)


def bundle_of(client: Client, submitted: Job, out: Path, *, url: str) -> Ended:
    """Wait for a job's end and download its bundle. Raises `JobUnsuccessful` where there is none."""
    try:
        done = follow(client, submitted)
    except KeyboardInterrupt:
        console.err.print(f"left running; cancel it with: coppice jobs cancel {submitted.id} --url {url}")
        raise
    if done.status != "succeeded":
        raise JobUnsuccessful(done)
    fetch(client, done, out)
    return Ended(done, out, client.report(done.id))


def show_plan(plan: JobPrediction, worded: Callable[[str], str], *, json: bool) -> None:
    """Print the predicted size, memory and time of a job, with warnings in the command line's own words."""
    if json:
        typer.echo(plan.model_dump_json())
        return
    if plan.predicted is None:
        console.out.print("it would be accepted; nothing is known of the model's size yet")
    else:
        told = plan.predicted
        floor = plan.spec.get("quality_floor") is not None
        sizes = (
            "the smallest model that keeps the floor" if floor else "a model of the size that the target is measured to take"
        )
        if told.parameters is not None and told.bytes is not None:
            counts = f"{told.parameters.pruned / 1e6:.1f} M of {told.parameters.dense / 1e6:.1f} M parameters"
            sizes = f"about {counts}, {told.bytes.pruned / 1e6:.1f} MB of weights"
        cost = f"{told.seconds:.0f} s and {told.memory_bytes / 2**30:.1f} GiB of memory"
        console.out.print(f"it would be accepted: {sizes}, {cost}", highlight=False, soft_wrap=True)
        for warning in told.warnings:
            console.note(worded(warning))
    for note in plan.found.notes:
        console.note(note)
    if plan.found.not_looked_at:
        console.note(f"not looked at: {'; '.join(plan.found.not_looked_at)}")


def follow(client: Client, job: Job) -> Job:
    """Wait for a job's end with a progress bar, and return the finished job."""
    warned = False
    with progress("queued") as show:

        def tell(now: Job) -> None:
            nonlocal warned
            if now.queue is not None and not now.queue.workers and not warned:
                warned = True
                console.note(nobody(now.queue))
            stage = now.progress.stage if now.progress is not None and not now.finished else status_of(now)
            show(stage, 1.0 if now.status == "succeeded" else now.progress.fraction if now.progress is not None else 0.0)

        return client.wait(job.id, tell)


def nobody(queue: JobQueue) -> str:
    """Say why no worker serves a job: there is none, or it needs what none has."""
    return _NO_WORKER if queue.why in (None, "no worker is signed in") else f"the job waits: {queue.why}"


def status_of(job: Job) -> str:
    """Return a job's status, and where it is while it waits."""
    if job.queue is None:
        return job.status
    return f"{job.status}, {job.queue.before} before it" if job.queue.before else f"{job.status}, the next one"


def result_document(job: Job, bundle: Path, report: Report) -> str:
    """Return the JSON document that reports a finished job."""
    result = {
        "status": job.status,
        "job_id": job.id,
        "bundle": str(bundle.absolute()),
        "report": report.model_dump(mode="json"),
    }
    return jsonlib.dumps(result)


def fetch(client: Client, job: Job, folder: Path) -> None:
    """Download a bundle with a progress bar."""
    with progress("download") as show:
        client.download(job.id, folder, lambda done, total: show("download", done / max(1, total)))


def conditions_of(texts: list[str]) -> list[Condition]:
    """Read the conditions of ``--fail-if``; end the command where one is none."""
    try:
        return [parse(text) for text in texts]
    except ValueError as error:
        fail(str(error), ExitCode.BAD_INPUT)


def check_conditions(conditions: list[Condition], spec: PruneSpec) -> None:
    """End the command where a condition names a further set that a spec does not have."""
    try:
        check_sets(conditions, [own.name for own in spec.evaluation.also])
    except ValueError as error:
        fail(f"--fail-if {error}", ExitCode.BAD_INPUT)


def judge(conditions: list[Condition], report: Report) -> None:
    """End the command with an exit code of its own where a condition holds."""
    try:
        held = [
            f"{condition} ({condition.named} is {condition.value(report):.6g})"
            for condition in conditions
            if condition.holds(report)
        ]
    except NotJudged as error:
        fail(f"a condition of --fail-if cannot be judged: {error}", ExitCode.BAD_INPUT)
    if held:
        fail(f"a condition of --fail-if holds: {'; '.join(held)}", ExitCode.CONDITION_HOLDS)
