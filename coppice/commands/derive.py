"""``coppice derive``: a job like another one, with other targets, layout, formats or engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options, places
from coppice.commands.delivery import Engines, Formats, Gguf, LatencyEngine, LatencyPhase, Layout, Quantization, Strict
from coppice.commands.options import JobOptions
from coppice.commands.waiting import bundle_of, conditions_of, judge, show_plan, show_result, show_submitted
from coppice.commands.which import JobId, Url, meant
from coppice.console import ExitCode, explained, fail


def derive(
    job_id: JobId,
    out: Annotated[Path | None, typer.Option(help="Folder for the downloaded bundle; must not exist, or be empty.")] = None,
    sparsity: options.Sparsity = None,
    macs_keep: options.MacsKeep = None,
    params_keep: options.ParamsKeep = None,
    latency_keep: options.LatencyKeep = None,
    latency_engine: LatencyEngine = None,
    latency_phase: LatencyPhase = None,
    tolerance: options.Tolerance = None,
    quality_floor: options.QualityFloor = None,
    floor_confidence: options.FloorConfidence = None,
    layout: Layout = None,
    formats: Formats = None,
    engines: Engines = None,
    gguf: Gguf = None,
    quantization: Quantization = None,
    strict: Strict = None,
    wait: Annotated[
        bool, typer.Option(help="Wait for the job's end and download the bundle; otherwise print the job and exit.")
    ] = True,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the predicted size, memory and time, and submit nothing.")
    ] = False,
    fail_if: Annotated[list[str] | None, typer.Option(help="Condition, as for coppice prune; repeatable.")] = None,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Submit a job like an earlier one, for other targets or engines. Model, data, method and calibration stay.

    What the earlier job has found out about the dense model is used again, where its worker has kept it.

    Example: coppice derive job_... --macs-keep 0.4 --out ./smaller
    """
    conditions = conditions_of(fail_if or [])
    if wait and not plan and out is None:
        fail("give --out, the folder for the bundle, or --no-wait", ExitCode.BAD_INPUT)
    if conditions and (plan or not wait):
        fail("--fail-if judges the report, so it needs --wait", ExitCode.BAD_INPUT)
    if out is not None:
        places.require_free(out)
    asked = JobOptions(
        sparsity=sparsity,
        macs_keep=macs_keep,
        params_keep=params_keep,
        latency_keep=latency_keep,
        latency_engine=latency_engine,
        latency_phase=latency_phase,
        tolerance=tolerance,
        quality_floor=quality_floor,
        floor_confidence=floor_confidence,
        layout=layout,
        formats=formats,
        engines=engines,
        gguf=gguf,
        quantization=quantization,
        strict=strict,
    )
    with explained(asked.worded), Client(url, api_key=key) as client, meant(client, job_id):
        changes = _changes(asked, client.get(job_id).spec)
        if plan:
            show_plan(client.plan_derived(job_id, **changes), lambda warning: asked.worded("", warning), json=json)
            return
        submitted = client.derive(job_id, **changes)
        console.err.print(f"job {submitted.id}", highlight=False)
        if not wait:
            show_submitted(submitted, json=json)
            return
        assert out is not None
        done, found = bundle_of(client, submitted, out, url=url)
    show_result(done, out, found, json=json)
    judge(conditions, found)


def _changes(asked: JobOptions, spec: dict[str, Any]) -> dict[str, Any]:
    """Return what options change of a job's spec; end the command where that is nothing."""
    changes = asked.asked_for(spec)
    if chosen := asked.delivered(spec):
        changes["artifacts"] = chosen
    if not changes:
        fail(
            "say what is to be different: a target such as --macs-keep, --quality-floor, --layout, --engine or --format",
            ExitCode.BAD_INPUT,
        )
    return changes
