"""Bundles are proven by a fork (see `proven_by_a_fork`), but in modules that are about the process itself, which start it anew.

So do the tests of the service, of bundles end to end, and of every cell of the matrix.
"""

from __future__ import annotations

import pytest

_OF_THE_PROCESS = {"test_acceptance", "test_resources", "test_larger_than_memory"}


@pytest.fixture(autouse=True)
def _forked(request: pytest.FixtureRequest) -> None:
    if request.module.__name__.rpartition(".")[2] not in _OF_THE_PROCESS:
        request.getfixturevalue("proven_by_a_fork")
