"""``coppice run``: prune in this process, without a server."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from coppice import console
from coppice.commands import options
from coppice.console import ExitCode, explained, fail, progress_bar
from pruning_core.errors import OutOfMemory, PruningError, Rejected, StorageFull
from pruning_core.report import Progress
from pruning_core.waiting import sleep_when_waiting


def run(
    out: Annotated[Path, typer.Option(help="Folder of the bundle; must not exist, or be empty.")],
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
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; a GPU where there is one by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the pruning.")] = None,
    json: options.Json = False,
) -> None:
    """Prune a model in this process and write the bundle. No server, the same pipeline.

    Example: coppice run --model ./minilm-sst2 --task glue/sst2 --data ./sst2 --macs-keep 0.5 --out ./bundle
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
    sleep_when_waiting()
    try:
        from pruning_core.pipeline import run as run_pipeline
    except ImportError as error:
        fail(f"pruning needs the worker's libraries ({error.name}): pip install 'coppice[worker]'", ExitCode.BAD_INPUT)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with progress_bar() as bar:
        line = bar.add_task("load", total=1.0)

        def tell(progress: Progress) -> None:
            bar.update(line, completed=progress.fraction, description=progress.stage)

        try:
            with contextlib.redirect_stdout(sys.stderr):  # whatever libraries print: stdout is for the result
                report = run_pipeline(built, out, device=device, threads=threads, cache=_cache_folder(), on_progress=tell)
        except Rejected as error:
            fail(f"{error.message} ({error.code}). The best candidate, with its report, is in {out}", ExitCode.JOB_FAILED)
        except (OutOfMemory, StorageFull) as error:
            fail(error.message, ExitCode.JOB_FAILED)
        except PruningError as error:
            where = f"{error.param}: " if error.param else ""
            fail(f"{where}{error.message}", ExitCode.BAD_INPUT)
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        console.show(report)
        console.out.print(f"bundle: {out}", soft_wrap=True, highlight=False)


def _cache_folder() -> Path:
    """Give the user's folder for what can be measured again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coppice"
