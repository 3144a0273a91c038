"""A finished job as an MLflow run: parameters of the request, metrics of the report, the bundle as artifacts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.client import Client
from coppice.errors import JobUnsuccessful
from coppice.types import Job
from pruning_core.report.quality import QualityReport
from pruning_core.report.report import Outcome, Report

if TYPE_CHECKING:
    from mlflow import MlflowClient

JOB_TAG = "coppice.job_id"


def log_job(
    client: Client,
    job_id: str,
    *,
    tracking_uri: str | None = None,
    experiment: str = "coppice",
    run_name: str | None = None,
    with_bundle: bool = True,
) -> str:
    """Log a succeeded job to MLflow. A job that was logged before is not logged again.

    Args:
        client: Client of the service.
        job_id: Id of the job.
        tracking_uri: MLflow's server or store; None: as MLflow's own environment says.
        experiment: Name of the experiment; made if there is none.
        run_name: Name of the run; None: the job's, or its id.
        with_bundle: Whether the bundle's files are logged, too, or only numbers and the report.

    Returns:
        The id of the new or earlier run.

    Raises:
        JobUnsuccessful: The job has not succeeded.
    """
    from mlflow import MlflowClient

    job = client.get(job_id)
    if job.status != "succeeded":
        raise JobUnsuccessful(job)
    tracking = MlflowClient(tracking_uri=tracking_uri)
    found = tracking.get_experiment_by_name(experiment)
    experiment_id = tracking.create_experiment(experiment) if found is None else found.experiment_id
    earlier = tracking.search_runs(
        [experiment_id], filter_string=f"tags.`{JOB_TAG}` = '{job.id}' and attributes.status = 'FINISHED'", max_results=1
    )
    if earlier:
        return earlier[0].info.run_id
    run_id: str = tracking.create_run(experiment_id, run_name=run_name or job.name or job.id, tags=_tags(job)).info.run_id
    try:
        _fill(tracking, run_id, client, job, with_bundle=with_bundle)
    except BaseException:
        tracking.set_terminated(run_id, status="FAILED")
        raise
    tracking.set_terminated(run_id, status="FINISHED")
    return run_id


def metrics_of(report: Report) -> dict[str, float]:
    """Return what was measured, flat. Of several budgets, the names of all but the first begin with the checkpoint's folder."""
    found = _metrics(report) | {f"seconds.{stage}": seconds for stage, seconds in report.seconds.by_stage.items()}
    found["seconds.total"] = report.seconds.total
    for point in report.frontier:
        if point.path != ".":
            found |= {f"{point.path}/{name}": value for name, value in _metrics(point).items()}
    return found


def params_of(report: Report) -> dict[str, str]:
    """Return what was asked for."""
    target = report.target
    return {
        "model": report.model,
        "task": report.task,
        "method": report.method,
        "recovery": report.recovery,
        f"target.{target.metric}": str(target.requested),
        "seed": str(report.seed),
        "device": report.device,
    }


def _metrics(outcome: Outcome) -> dict[str, float]:
    quality, latency = outcome.quality, outcome.latency_ms
    found = {
        "target.achieved": outcome.target.achieved,
        "sparsity": outcome.sparsity.achieved,
        f"dense.{quality.metric}": quality.dense,
        f"pruned.{quality.metric}": quality.pruned,
        "dense.latency_ms": latency.dense,
        "pruned.latency_ms": latency.pruned,
        "speedup": latency.speedup,
    }
    if latency.interval is not None:
        found |= {"speedup.low": latency.interval.low, "speedup.high": latency.interval.high}
    found |= _difference(quality, "")
    for own in outcome.also:
        if own.quality is not None:
            start = f"also.{own.name}."
            found |= {f"{start}dense.{own.metric}": own.quality.dense, f"{start}pruned.{own.metric}": own.quality.pruned}
            found |= _difference(own.quality, start)
    for name, pair in (("macs", outcome.macs), ("parameters", outcome.parameters), ("bytes", outcome.bytes)):
        found |= {f"dense.{name}": float(pair.dense), f"pruned.{name}": float(pair.pruned)}
    return found


def _difference(quality: QualityReport, start: str) -> dict[str, float]:
    found = quality.difference
    if found is None:
        return {}
    ends = {"difference": found.value, "difference.low": found.low, "difference.high": found.high}
    return {f"{start}{name}": value for name, value in (ends | {"difference.p_value": found.p_value}).items()}


def _tags(job: Job) -> dict[str, str]:
    own = {JOB_TAG: job.id, "coppice.attempt": str(job.attempt)} | ({"coppice.tags": ", ".join(job.tags)} if job.tags else {})
    return own | {f"coppice.metadata.{name}": value for name, value in job.metadata.items()}


def _fill(tracking: MlflowClient, run_id: str, client: Client, job: Job, *, with_bundle: bool) -> None:
    report = client.report(job.id)
    for name, value in params_of(report).items():
        tracking.log_param(run_id, name, value)
    for name, number in metrics_of(report).items():
        tracking.log_metric(run_id, name, number)
    with tempfile.TemporaryDirectory(prefix="coppice-mlflow-") as name:
        folder = Path(name)
        if any(artifact.path == "report.html" for artifact in job.artifacts):  # the bundle's files may have expired
            (folder / "report.html").write_text(client.report_page(job.id), encoding="utf-8")
        (folder / "report.json").write_text(report.model_dump_json(indent=2), encoding="utf-8")
        (folder / "spec.json").write_text(json.dumps(job.spec, indent=2), encoding="utf-8")
        for path in sorted(folder.iterdir()):
            tracking.log_artifact(run_id, str(path))
        if with_bundle:
            tracking.log_artifacts(run_id, str(client.download(job.id, folder / "bundle")), "bundle")
