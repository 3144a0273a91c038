"""``coppice derive``: a job like another one, with other targets, layout, formats or engines."""

from __future__ import annotations

from typing import Any

from coppice.client import DEFAULT_URL, Client
from coppice.commands import budgets, options, places
from coppice.commands.delivery import Engines, Formats, Gguf, LatencyEngine, LatencyPhase, Layout, Quantization, Strict
from coppice.commands.options import JobOptions
from coppice.commands.sending import Name, Tags, of_the_job
from coppice.commands.waiting import (
    BundleFolder,
    FailIf,
    PlanOnly,
    Wait,
    conditions_of,
    require_bundle_folder,
    see_through,
    show_ended,
    show_plan,
)
from coppice.commands.which import JobId, Url, meant
from coppice.console import ExitCode, explained, fail


def derive(
    job_id: JobId,
    out: BundleFolder = None,
    sparsity: budgets.Sparsity = None,
    macs_keep: budgets.MacsKeep = None,
    params_keep: budgets.ParamsKeep = None,
    latency_keep: budgets.LatencyKeep = None,
    bytes_at_most: budgets.BytesAtMost = None,
    latency_engine: LatencyEngine = None,
    latency_phase: LatencyPhase = None,
    tolerance: budgets.Tolerance = None,
    quality_floor: budgets.QualityFloor = None,
    floor_confidence: budgets.FloorConfidence = None,
    layout: Layout = None,
    formats: Formats = None,
    engines: Engines = None,
    gguf: Gguf = None,
    quantization: Quantization = None,
    strict: Strict = None,
    name: Name = None,
    tag: Tags = None,
    wait: Wait = True,
    plan: PlanOnly = False,
    fail_if: FailIf = None,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Submit a job like an earlier one, for other targets or engines. Model, data, method and calibration stay.

    What the earlier job has found out about the dense model is used again, where its worker has kept it.

    Example: coppice derive job_... --macs-keep 0.4 --out ./smaller
    """
    conditions = conditions_of(fail_if or [])
    require_bundle_folder(out, conditions, wait=wait, plan=plan)
    if out is not None:
        places.require_free(out)
    asked = JobOptions(
        sparsity=sparsity,
        macs_keep=macs_keep,
        params_keep=params_keep,
        latency_keep=latency_keep,
        bytes_at_most=bytes_at_most,
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
    with explained(of_the_job(asked.worded)), Client(url, api_key=key) as client, meant(client, job_id):
        changes = _changes(asked, client.get(job_id).spec)
        changes |= ({} if name is None else {"name": name}) | ({"tags": tag} if tag else {})
        if plan:
            show_plan(client.plan_derived(job_id, **changes), lambda warning: asked.worded("", warning), json=json)
            return
        submitted = client.derive(job_id, **changes)
        ended = see_through(client, submitted, out, wait=wait, url=url, json=json)
    if ended is not None:
        show_ended(ended, conditions, json=json)


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
