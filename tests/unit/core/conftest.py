"""Bundles are proven by a fork of a process that has the stock libraries imported already: that import is most of a tiny job.

What is forked runs the very script of a job's proof and has imported nothing of ours (`tests.prover`). Modules that are about
the process itself start it anew, as do the tests of the service, of bundles end to end, and of every cell of the matrix.
"""

from __future__ import annotations

import pytest

_OF_THE_PROCESS = {"test_acceptance", "test_resources", "test_larger_than_memory"}


@pytest.fixture(autouse=True)
def proven_by_a_fork(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.module.__name__.rpartition(".")[2] in _OF_THE_PROCESS:
        return
    from pruning_core.artifacts import acceptance

    monkeypatch.setattr(acceptance, "run_limited", request.getfixturevalue("prover_process").run_limited)
