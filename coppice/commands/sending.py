"""What is sent to a service: folders of this host that a spec names, and what the job's worker must have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coppice.client import Client
from coppice.commands.places import is_path
from coppice.console import ExitCode, Worded, fail, fail_all, joined, progress
from pruning_core.spec.data_places import TASK_DATA, data_places, with_data
from pruning_core.spec.prune import PruneSpec

Name = Annotated[str | None, typer.Option(help="What you call the job: up to 200 characters.")]
Tags = Annotated[list[str] | None, typer.Option(help="A word by which jobs are found together; repeatable.")]


# Fields of a request that belong to the job, and not to its spec, by their options.
_OF_JOBS = {
    "name": "--name",
    "tags": "--tag",
    "max_attempts": "--max-attempts",
    "timeout_s": "--timeout-s",
    "needs": "--worker-tag",
    "needs.device": "--worker-device",
    "needs.tags": "--worker-tag",
    "calibration_id": "--calibration",
}


def of_the_job(worded: Worded) -> Worded:
    """Speak of options where the service speaks of a job's fields; of those of a spec, ``worded`` speaks."""

    def said(field: str, message: str) -> str:
        option = _OF_JOBS.get(field.rstrip(".0123456789"))
        return worded(field, message) if option is None else joined(option, message)

    return said


def with_uploads(client: Client, spec: PruneSpec) -> PruneSpec:
    """Upload the folders that a spec names, and return the spec with the ids of the uploads."""
    with progress("upload") as show:
        model = spec.model
        if is_path(model):
            show("upload of the model", 0.0)
            model = client.upload_model(Path(model)).id
        sent: dict[str, str] = {}  # a folder that several sets name is sent once
        for own in data_places(spec):
            if is_path(own.reference) and own.reference not in sent:
                show("upload of the adapter" if own.of_model else "upload of the data", 0.5)
                upload = client.upload_model if own.of_model else client.upload_dataset
                sent[own.reference] = upload(Path(own.reference)).id
    data = {own.param: sent.get(own.reference, own.reference) for own in data_places(spec)}
    return with_data(spec, data).model_copy(update={"model": model})


def require_folders(spec: PruneSpec) -> None:
    """Refuse to upload what is no folder here, before the service is asked."""
    data = {own.param: own.reference for own in data_places(spec)}
    places = {"--model": spec.model, "--data": data.pop(TASK_DATA), **data}
    wrong = [
        f"{option} {place} is {'a file' if Path(place).exists() else 'no folder of this host'}; --upload sends folders"
        for option, place in places.items()
        if is_path(place) and not Path(place).expanduser().is_dir()
    ]
    if wrong:
        fail_all(wrong, ExitCode.BAD_INPUT)


def asking(
    spec: PruneSpec, *, device: str | None = None, worker_tags: list[str] | None = None, **given: object
) -> PruneSpec | dict[str, Any]:
    """Add what belongs to the job to a request.

    Args:
        spec: What is asked for.
        device: Class of device that the worker must have; None: any.
        worker_tags: Tags that the worker must have.
        given: Further fields of the job, such as ``name`` and ``max_attempts``; None: not given.
    """
    needs = ({} if device is None else {"device": device}) | ({"tags": worker_tags} if worker_tags else {})
    own = {name: value for name, value in {"needs": needs or None, **given}.items() if value is not None}
    return {**spec.model_dump(mode="json"), **own} if own else spec


def metadata_of(pairs: list[str] | None) -> dict[str, str]:
    """Read the pairs of ``--metadata``; end the command where one is none."""
    parts = [pair.partition("=") for pair in pairs or []]
    if not all(equals for _name, equals, _value in parts):
        fail("--metadata must be KEY=VALUE", ExitCode.BAD_INPUT)
    return {name: value for name, _equals, value in parts}
