"""``coppice run``: prune in this process, without a server."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import typer

from coppice import console
from coppice.commands import options, places
from coppice.console import ExitCode, fail, progress
from coppice.installation import DISTRIBUTION
from pruning_core.errors import OutOfMemory, PruningError, Rejected, StorageFull
from pruning_core.machine.threads import keep_few_kernels, sleep_when_waiting
from pruning_core.report.progress import Progress


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
    json: options.Json = False,
) -> None:
    """Prune a model in this process and write the bundle, by the same pipeline as the service.

    Example: coppice run --model ./minilm-sst2 --task glue/sst2 --data ./sst2 --macs-keep 0.5 --out ./bundle
    """
    built = job.to_spec()
    places.require_free(out)
    sleep_when_waiting()
    keep_few_kernels()
    try:
        from pruning_core.kept.folder import KeptFolder
        from pruning_core.run.pipeline import run as run_pipeline
    except ImportError as error:
        fail(f"pruning needs {error.name}, which is not installed: pip install '{DISTRIBUTION}[prune]'", ExitCode.BAD_INPUT)
    with quiet_libraries(), progress("load") as show:

        def tell(now: Progress) -> None:
            show(now.stage, now.fraction)

        try:
            with contextlib.redirect_stdout(sys.stderr):  # libraries may print, and stdout is for the result
                report = run_pipeline(
                    built,
                    out,
                    device=device,
                    threads=threads,
                    cache=cache_folder(),
                    statistics=None if statistics is None else KeptFolder(statistics),
                    on_progress=tell,
                )
        except Rejected as error:
            fail(f"{error.message} ({error.code}). The best candidate, with its report, is in {out}", ExitCode.JOB_FAILED)
        except (OutOfMemory, StorageFull) as error:
            fail(error.message, ExitCode.JOB_FAILED)
        except PruningError as error:
            options.refuse(error, job)
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        console.show(report)
        console.out.print(f"bundle: {out}", soft_wrap=True, highlight=False)


@contextlib.contextmanager
def quiet_libraries() -> Generator[None]:
    """Say nothing of what the libraries say; what matters of it is in the report. Both are of the whole process."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def cache_folder() -> Path:
    """Return the user's cache folder, for measurements that later runs use again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coppice"
