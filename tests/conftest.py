"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.prover import Prover

pytest_plugins = ["tests.servers"]

# Tiny models are faster on one thread, and tests that run side by side do not fight for cores. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT for two-class classification, with its tokenizer."""
    return tiny.write_model(tmp_path_factory.mktemp("tiny-bert"), "bert")


@pytest.fixture(scope="session")
def tiny_sst2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet files with the columns of GLUE SST-2."""
    return tiny.write_dataset(tmp_path_factory.mktemp("tiny-sst2"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data beside the checkout."""
    if not (SHARED / "models").is_dir():
        pytest.skip("../shared is not here: the tests on real models and data are skipped")
    return SHARED


@pytest.fixture(scope="session")
def prover_process() -> Iterator[Prover]:
    """A process that forks one for each bundle to be proven."""
    prover = Prover()
    yield prover
    prover.close()


@pytest.fixture
def proven_by_a_fork(prover_process: Prover) -> Iterator[None]:
    """Prove the bundles of runs in this process by a fork of one that has the stock libraries imported already.

    What is forked runs the very script of a job's proof and has imported nothing of ours. That import is most of a tiny job.
    """
    with prover_process.proving():
        yield
