"""Runs of the cells of `benchmarks.same` in a tree, and a store for the results, so that a commit need not run again.

Every cell has a folder with its bundle and the `Record` of its run. The folder of a commit is named after the commit and all
other facts that the bytes depend on (processor, versions of libraries). Each record holds the digest of its spec and inputs.
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
# One thread for each process, a fixed hash seed, and no network.
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
    """Record of the run of a cell.

    Attributes:
        key: Digest of the spec and of all inputs.
        exit: Exit code of ``coppice run``.
        said: Last words of the command if the exit code is not 0; empty otherwise.
        seconds: Processor seconds, which do not depend on what else runs.
        places: Folders whose paths may occur in the written files.
    """

    key: str
    exit: int
    said: str
    seconds: float
    places: Places


@dataclass(frozen=True)
class Kept:
    """Store of the bundles and records of a tree's cells, in a folder."""

    folder: Path

    def bundle(self, cell: Cell) -> Path:
        """Return the folder of a cell's bundle, which need not exist."""
        return self.folder / cell.name / _BUNDLE

    def read(self, cell: Cell, key: str) -> Record | None:
        """Return the record of a cell; None if it was not run with this spec and these inputs."""
        path = self.folder / cell.name / _RECORD
        if not path.is_file():
            return None
        fields = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**fields | {"places": Places(**fields["places"])})
        return record if record.key == key else None

    def get(self, cell: Cell, key: str) -> Record:
        """Return the record of a cell that was run."""
        record = self.read(cell, key)
        assert record is not None, f"{cell.name} was run"
        return record

    def keep(self, cell: Cell, record: Record, bundle: Path) -> None:
        """Move a cell's bundle into the store. The record is written last: it says that the bundle is complete."""
        folder = self.folder / cell.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if bundle.exists():
            shutil.move(bundle, folder / _BUNDLE)
        (folder / _RECORD).write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")


def machine() -> str:
    """Return, as JSON, the facts that the bytes depend on beside code, spec and inputs: processor and versions."""
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
    """Return a digest of a text that is short enough for a file name."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def inputs_in(cache: Path) -> tuple[Path, str]:
    """Return the folder of models and data, and the digest of its files. The folder is made if it does not exist."""
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
    """Return the digest of a cell's spec and inputs."""
    return short(cell.spec + inputs)


@contextmanager
def checked_out(commit: str, folder: Path) -> Generator[Path]:
    """Check a commit out as a worktree, which is removed when the context ends."""
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(folder), commit], check=True)  # noqa: S607
    try:
        yield folder
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(folder)], check=True)  # noqa: S607


def resolve(commit: str) -> str:
    """Return the full hash of a commit.

    Raises:
        TreeFailed: git does not know the commit.
    """
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TreeFailed(f"git knows no commit {commit}")
    return done.stdout.strip()


def run_cells(
    tree: Path, cells: Sequence[Cell], inputs: Path, digest: str, kept: Kept, tell: Callable[[Cell, Record], None]
) -> None:
    """Run cells in a tree, one after the other, and store their bundles and records.

    Args:
        tree: Folder of the tree.
        cells: The cells to run.
        inputs: Folder of models and data.
        digest: Digest of the inputs.
        kept: Store for the results.
        tell: Called with each finished cell and its record.

    Raises:
        TreeFailed: The folder is not a tree of ours, or its process failed.
    """
    if not (tree / "coppice" / "cli.py").is_file():
        raise TreeFailed(f"{tree} has no coppice/cli.py")
    with tempfile.TemporaryDirectory(prefix="coppice-same-") as scratch:
        work = Path(scratch)
        jobs = [_job(cell, inputs, work) for cell in cells]
        (work / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        own = {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(work / "cache"), "HF_HOME": str(work / "hf")}
        usual = {name: value for name, value in os.environ.items() if not name.startswith(("COPPICE_", "HF_", "PYTHON"))}
        # -P keeps the folder of the script, and the modules in it, off the import path.
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
