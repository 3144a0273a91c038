"""The process of one tree for `benchmarks.same`: runs cells by the tree's own command line, each in a fork of its own.

This is a script, not a module to import: ``python -P same_driver.py TREE JOBS.json``, started in the tree's folder, with the
tree first on PYTHONPATH. A fork keeps no state of the cells before it. It need not import again either: after each cell the
parent process imports the modules that the cell imported. Prints one line of JSON for each cell when it ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

_PACKAGES = ("pruning_core", "coppice", "app", "worker")


def main(tree: Path, jobs: list[dict[str, Any]]) -> None:
    """Run all jobs, one after the other."""
    import coppice.cli  # the only entry point that no tree moves

    check_origin(tree)
    import torch

    torch.set_num_threads(1)
    for job in jobs:
        status, seconds = run(tree, job, coppice.cli.app)
        print(json.dumps({"cell": job["cell"], "exit": status, "seconds": seconds}), flush=True)
        modules = Path(job["modules"])
        if modules.is_file():
            import_ahead(json.loads(modules.read_text(encoding="utf-8")))


def run(tree: Path, job: dict[str, Any], app: Any) -> tuple[int, float]:
    """Run one cell in a fork, which writes to the job's log. Return its exit code and processor seconds."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            found = prune(job, app)
            check_origin(tree)
            status = found
            Path(job["modules"]).write_text(json.dumps(sorted(sys.modules)), encoding="utf-8")
        except BaseException:  # a fork must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, ended, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(ended), used.ru_utime + used.ru_stime  # including the process that proves the bundle


def prune(job: dict[str, Any], app: Any) -> int:
    """Call ``coppice run`` as a shell would. Return its exit code."""
    import torch

    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    torch.manual_seed(0)
    command = ["run", "--spec", job["spec"], "--out", job["out"], "--device", "cpu", "--threads", "1"]
    return int(app(command, standalone_mode=False) or 0)


def import_ahead(names: list[str]) -> None:
    """Import the modules that a cell imported, for the cells that follow. Modules that fail to import are left to them."""
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.freeze()  # no fork needs to collect the objects that all forks share


def check_origin(tree: Path) -> None:
    """Check that all modules of our packages come from the tree, not from an installed package.

    Raises:
        SystemExit: A module comes from elsewhere.
    """
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if name.partition(".")[0] in _PACKAGES and origin is not None and not Path(origin).resolve().is_relative_to(tree):
            raise SystemExit(f"{name} comes from {origin}, not from {tree}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
