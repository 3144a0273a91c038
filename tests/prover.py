"""A process that has stock libraries imported, and forks one for each bundle to be proven.

Importing torch and transformers is nine tenths of what a tiny model's job takes, and the whole matrix is a thousand jobs. The
writing of the matrix uses this, and the tests of the core that are not about the process; the tests of the matrix's cells start
a fresh process for each, as every job does. What is forked has imported nothing of ours either: this file is run as a script
(``python -P``), and told of jobs on its standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock


class Prover:
    """Stands in for `pruning_core.artifacts.process` where a bundle is proven."""

    def __init__(self, *warm: str) -> None:
        """Start the process.

        Args:
            warm: Further modules that it imports beforehand, of the libraries alone.
        """
        self._home = tempfile.TemporaryDirectory()
        places = {"HF_HOME": self._home.name, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, *warm],
            env=os.environ | places,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)
        self._home.cleanup()

    def end(self) -> None:
        """End the process at once, where its answers may be another's."""
        self._process.kill()
        self._process.wait()
        self._home.cleanup()

    @contextmanager
    def proving(self) -> Generator[None]:
        """Prove the bundles of this process's runs while the context is open; none starts a process of its own ahead."""
        from pruning_core.artifacts import acceptance
        from pruning_core.run import pipeline

        nothing = mock.patch.object(pipeline, "started", return_value=nullcontext())
        with mock.patch.object(acceptance, "run_limited", self.run_limited), nothing:
            yield

    def run_limited(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        limit_s: float,
        meanwhile: Callable[[], None],
    ) -> int:
        """Prove what a command line asks for."""
        del env, limit_s, meanwhile  # a fork of the prover takes no time in which to look
        log.touch()
        _python, _flag, script, request, result, _parent, stage = command
        job = {"script": script, "request": request, "result": result, "stage": stage, "cwd": str(cwd), "log": str(log)}
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answered is not None
        asked.write(json.dumps(job) + "\n")
        asked.flush()
        return int(answered.readline())


def _serve() -> None:
    import torch  # noqa: F401 - imported for those that are forked
    import transformers  # noqa: F401

    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _prove(job)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


def _prove(job: dict[str, str]) -> None:
    code = 1
    try:
        log = os.open(job["log"], os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(job["cwd"])
        sys.argv = [job["script"], job["request"], job["result"], str(os.getppid()), job["stage"]]
        runpy.run_path(job["script"], run_name="__main__")
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
