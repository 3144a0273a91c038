"""The tests that have a branch for GPUs: slicing, Grams, repairs, paged weights, 2:4 products, latency by type, training."""

from __future__ import annotations

import pytest

from benchmarks.gpu.needs import ROOT
from benchmarks.gpu.parts import Emit, Setting

FILES = ("tests/unit/core/test_devices.py",)
# The configuration of CI is not taken: its plug-ins may be missing, and another torch warns of other things.
_OPTIONS = ("-o", "addopts=", "-o", "filterwarnings=default", "--noconftest", "-p", "no:cacheprovider", "-q", "-s")


class Rows:
    """A plug-in of pytest that writes a row as each test ends: a run that is ended early has those before."""

    def __init__(self, emit: Emit) -> None:
        """Keep what writes a row."""
        self._emit = emit

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write how many tests there are."""
        self._emit("collected", tests=len(session.items))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write how a test went; of its set-up and its end, only what went wrong."""
        if report.when == "call" or not report.passed:
            self._emit(report.nodeid.rpartition("::")[2], result=report.outcome, seconds=report.duration)


def measure(setting: Setting, emit: Emit) -> None:
    """Run them; in a dry run they are only collected, since CI runs their half for CPUs anyway.

    Raises:
        RuntimeError: One of them failed, or none ran.
    """
    rows = Rows(emit)
    how = ("--collect-only",) if setting.dry else ("-k", "cuda")
    status = int(pytest.main([*_OPTIONS, *how, *(str(ROOT / name) for name in FILES)], plugins=[rows]))
    if status:
        raise RuntimeError(f"pytest ended with status {status}: its output is in gpu.log")
