"""``coppice run``: prune in this process, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from coppice import console
from coppice.commands import options, places
from coppice.commands.here import cache_folder, computing, importing_core
from coppice.console import ExitCode, explained, fail, joined
from pruning_core.errors import Rejected
from pruning_core.spec.naming import RunName


@options.takes_job
def run(
    out: Annotated[Path, typer.Option(help="Folder of the bundle; must not exist, or be empty.")],
    job: options.JobOptions,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; by default a GPU if there is one.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads to prune with.")] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which to keep what is found out about the dense model. A run for another target of the same model "
            "and data takes it from there, and writes the same weights as without it.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What you call the run, for its report.")] = None,
    json: options.Json = False,
) -> None:
    """Prune a model in this process and write the bundle, by the same pipeline as the service.

    Example: coppice run --model ./minilm-sst2 --task glue/sst2 --data ./sst2 --macs-keep 0.5 --out ./bundle
    """
    built = job.to_spec()
    with explained(lambda _field, message: joined("--name", message)):
        called = None if name is None else TypeAdapter(RunName).validate_python(name)
    places.require_free(out)
    with importing_core():
        from pruning_core.kept.folder import KeptFolder
        from pruning_core.run.pipeline import run as run_pipeline
    with computing(lambda error: options.refuse(error, job)) as tell:
        try:
            report = run_pipeline(
                built,
                out,
                device=device,
                threads=threads,
                cache=cache_folder(),
                name=called,
                statistics=None if statistics is None else KeptFolder(statistics),
                on_progress=tell,
            )
        except Rejected as error:
            fail(f"{error.message} ({error.code}). The best candidate, with its report, is in {out}", ExitCode.JOB_FAILED)
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        console.show(report)
        console.out.print(f"bundle: {out}", soft_wrap=True, highlight=False)
