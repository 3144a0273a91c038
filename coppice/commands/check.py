"""``coppice check``: whether a service would accept a job, from the files alone, without a server."""

from __future__ import annotations

from coppice.commands import options
from coppice.commands.waiting import show_plan
from coppice.types import JobPrediction
from pruning_core.errors import PruningError


@options.takes_job
def check(job: options.JobOptions, json: options.Json = False) -> None:
    """Check whether a job would be accepted, and predict its size, memory and time: from the files alone.

    Example: coppice check --model ./minilm-sst2 --task glue/sst2 --data ./sst2 --macs-keep 0.5
    """
    from pruning_core.checks.prediction import predict
    from pruning_core.checks.request import check_local_inputs

    spec = job.to_spec()
    try:
        checked = check_local_inputs(spec)
        predicted = predict(spec)
    except PruningError as error:
        options.refuse(error, job)
    said = {
        "spec": checked.spec.model_dump(mode="json"),
        "predicted": None if predicted is None else predicted.model_dump(),
        "found": checked.findings.model_dump(),
    }
    show_plan(JobPrediction.model_validate(said), lambda warning: job.worded("", warning), json=json)
