"""``coppice outlook``: what other budgets of a job would bring, predicted at once."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.commands.which import JobId, Url, meant
from coppice.console import ExitCode, explained, fail
from coppice.types import Outlook, PredictedBudget

_STEP = 10  # per cent between the budgets that are listed


def outlook(
    job_id: JobId,
    macs_keep: Annotated[float | None, typer.Option(help="Show this budget alone, as a share of the MACs.")] = None,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Predict other budgets of a finished job: size, speed and divergence. Nothing is built for it.

    Sizes are counted. Speed and divergence are put to scale by what was built: this job, and jobs that are derived from it.

    Example: coppice outlook job_... --macs-keep 0.4
    """
    with explained(), Client(url, api_key=key) as client, meant(client, job_id):
        found = client.outlook(job_id)
    if macs_keep is not None:
        found = found.model_copy(update={"predictions": (_nearest(found, macs_keep),)})
    if json:
        typer.echo(found.model_dump_json())
        return
    _show(found, found.predictions if macs_keep is not None else found.predictions[_STEP - 1 :: _STEP])


def _nearest(found: Outlook, keep: float) -> PredictedBudget:
    if not found.least_keep <= keep < 1 or not found.predictions:
        fail(f"--macs-keep: from {found.least_keep:.2f} up to below 1 for this model, not {keep:g}", ExitCode.BAD_INPUT)
    return min(found.predictions, key=lambda own: abs(own.macs_keep - keep))


def _show(found: Outlook, budgets: tuple[PredictedBudget, ...]) -> None:
    table = Table(title="predicted")
    for heading in ("MACs kept", "weights", "of dense", "speed-up", "divergence"):
        table.add_column(heading, justify="right")
    for own in budgets:
        size = own.bytes / max(1, found.dense_bytes)
        figures = (
            f"{own.macs_keep:.0%}",
            f"{own.bytes / 1e6:.1f} MB",
            f"{size:.0%}",
            _times(own.speedup),
            _small(own.divergence),
        )
        table.add_row(*figures)
    console.out.print(table)
    table = Table(title="built (and predicted from the others)")
    for heading in ("job", "MACs kept", "speed-up", "divergence"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for own in found.built:
        speed = f"{_times(own.speedup)} ({_times(own.predicted_speedup)})"
        table.add_row(own.job, f"{own.macs_keep:.0%}", speed, f"{_small(own.divergence)} ({_small(own.predicted_divergence)})")
    console.out.print(table)
    if found.measure is not None:
        console.out.print(f"divergence: {found.measure}; 0 is the dense model", highlight=False)
    if len(found.built) == 1:
        console.note("one checkpoint was built, so that nothing is known of the error; it shows once another one is")


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
