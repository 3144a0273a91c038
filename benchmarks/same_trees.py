"""Runs the cells of `benchmarks.same` in a tree, and keeps what a commit wrote, so that it need not be run again.

What a tree wrote lies in one folder a cell: the bundle as it is, and `Record` of how it came to be. Those of a commit are kept
under its name and what all numbers depend on (processor, versions of libraries), each with the digest of its spec and inputs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import same_models
from benchmarks.same_cells import Cell
from benchmarks.same_normal import Places

ROOT = Path(__file__).resolve().parents[1]
_DRIVER = Path(__file__).with_name("same_driver.py")
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "onnx", "onnxruntime", "onnxscript")
# One thread each, the same order of what Python hashes, and nothing from a network.
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "PYTHONHASHSEED": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_BUNDLE, _RECORD = "bundle", "record.json"


class TreeFailed(Exception):
    """A tree could not be run at all; the message says why."""


@dataclass(frozen=True)
class Record:
    """How a cell went.

    Attributes:
        key: Digest of the spec and of all inputs.
        exit: Exit code of ``coppice run``.
        said: Its last words, where it was not 0.
        seconds: Of the processor, so that it does not matter what else runs.
        places: Folders that may be named in what it wrote.
    """

    key: str
    exit: int
    said: str
    seconds: float
    places: Places


@dataclass(frozen=True)
class Kept:
    """Folder of what the cells of a tree wrote."""

    folder: Path

    def bundle(self, cell: Cell) -> Path:
        """Give the folder of what a cell wrote; it need not be there."""
        return self.folder / cell.name / _BUNDLE

    def read(self, cell: Cell, key: str) -> Record | None:
        """Give the record of a cell; None where it was not run with this spec and these inputs."""
        path = self.folder / cell.name / _RECORD
        if not path.is_file():
            return None
        fields = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**fields | {"places": Places(**fields["places"])})
        return record if record.key == key else None

    def get(self, cell: Cell, key: str) -> Record:
        """Give the record of a cell that was run."""
        record = self.read(cell, key)
        assert record is not None, f"{cell.name} was run"
        return record

    def keep(self, cell: Cell, record: Record, bundle: Path) -> None:
        """Take over what a cell wrote; the record comes last, and says that the rest is there."""
        folder = self.folder / cell.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if bundle.exists():
            shutil.move(bundle, folder / _BUNDLE)
        (folder / _RECORD).write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")


def machine() -> str:
    """Name all that the bytes depend on beside code, spec and inputs."""
    import torch

    found = {name: _version(name) for name in _LIBRARIES}
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return json.dumps([platform.python_version(), processor, torch.backends.cpu.get_cpu_capability(), found])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def short(text: str) -> str:
    """Give a digest that is short enough for a name."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def inputs_in(cache: Path) -> tuple[Path, str]:
    """Give the folder of models and data, made where it is not there yet, and its digest."""
    folder = cache / f"inputs-{short(Path(same_models.__file__).read_text(encoding='utf-8') + machine())}"
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        same_models.write_inputs(partial)
        partial.rename(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return folder, short(
        "".join(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)
    )


def key_of(cell: Cell, inputs: str) -> str:
    """Give the digest of a cell's spec and of its inputs."""
    return short(cell.spec + inputs)


@contextmanager
def checked_out(commit: str, folder: Path) -> Generator[Path]:
    """Have the tree of a commit, as a worktree that goes again."""
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(folder), commit], check=True)  # noqa: S607
    try:
        yield folder
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(folder)], check=True)  # noqa: S607


def resolve(commit: str) -> str:
    """Give a commit's whole name."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TreeFailed(f"git knows no commit {commit}")
    return done.stdout.strip()


def run_cells(
    tree: Path, cells: Sequence[Cell], inputs: Path, digest: str, kept: Kept, tell: Callable[[Cell, Record], None]
) -> None:
    """Run cells in a tree, one after the other in one process, and keep what they wrote.

    Args:
        tree: Its folder.
        cells: What to run.
        inputs: Folder of models and data.
        digest: Of the inputs.
        kept: Where to.
        tell: Told of each cell that is done.

    Raises:
        TreeFailed: There is no such tree, or its process ended before its work did.
    """
    if not (tree / "coppice" / "cli.py").is_file():
        raise TreeFailed(f"{tree} has no coppice/cli.py")
    with tempfile.TemporaryDirectory(prefix="coppice-same-") as scratch:
        work = Path(scratch)
        jobs = [_job(cell, inputs, work) for cell in cells]
        (work / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        own = {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(work / "cache"), "HF_HOME": str(work / "hf")}
        usual = {name: value for name, value in os.environ.items() if not name.startswith(("COPPICE_", "HF_", "PYTHON"))}
        # -P: the folder of the script, with modules of other names, stays off the path.
        command = [sys.executable, "-P", str(_DRIVER), str(tree), str(work / "jobs.json")]
        with (work / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=tree, env=usual | _SETTINGS | own, stdout=subprocess.PIPE, stderr=log, text=True
            )
            assert process.stdout is not None
            for cell, job, line in zip(cells, jobs, process.stdout, strict=False):
                done: dict[str, Any] = json.loads(line)
                places = Places(str(tree), str(inputs), job["out"])
                said = places.hide(_last_words(Path(job["log"]))) if done["exit"] else ""
                record = Record(key_of(cell, digest), done["exit"], said, round(done["seconds"], 1), places)
                kept.keep(cell, record, Path(job["out"]))
                tell(cell, record)
            status = process.wait()
        if status != 0:
            said = (work / "log").read_text(encoding="utf-8").strip().splitlines()[-5:]
            raise TreeFailed(f"{tree} cannot be run, exit code {status}: {' / '.join(said)}")


def _job(cell: Cell, inputs: Path, work: Path) -> dict[str, str]:
    spec = work / f"{cell.name}.json"
    spec.write_text(cell.fill(str(inputs)), encoding="utf-8")
    out, log = work / "out" / cell.name, work / f"{cell.name}.log"
    return {"cell": cell.name, "spec": str(spec), "out": str(out), "log": str(log), "modules": str(work / "modules.json")}


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((line for line in reversed(lines) if line.startswith("error: ")), " / ".join(lines[-3:]))
