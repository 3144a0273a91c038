"""The process that is started ahead of a proof: it is asked once, replaced where it has died, and never outlives a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pruning_core.artifacts import acceptance
from pruning_core.artifacts.ahead import Ahead, started
from pruning_core.report.progress import Progress
from pruning_core.run import pipeline
from tests import tiny
from tests.servers import wait_until


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Ahead]:
    """The processes that runs start ahead."""
    found: list[Ahead] = []

    @contextmanager
    def watching(*, embeds: bool) -> Iterator[Ahead]:
        with started(embeds=embeds) as ahead:
            found.append(ahead)
            yield ahead

    monkeypatch.setattr(pipeline, "started", watching)
    return found


def _pid_of(ahead: Ahead) -> int:
    return ahead.process._process.pid  # pyright: ignore[reportPrivateUsage]


@pytest.mark.long
def test_a_bundle_is_proven_by_the_process_that_was_started_ahead(
    watched: list[Ahead], tiny_bert: Path, tiny_sst2: Path, tmp_path: Path
) -> None:
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2)
    with mock.patch.object(acceptance, "run_limited", side_effect=AssertionError("another process was started")):
        report = pipeline.run(spec, tmp_path / "out", device="cpu")
    assert report.acceptance is not None
    assert len(watched) == 1
    assert not watched[0].desk.folder.exists()


@pytest.mark.long
def test_a_process_that_has_died_meanwhile_is_replaced(
    watched: list[Ahead], tiny_bert: Path, tiny_sst2: Path, tmp_path: Path
) -> None:
    def killing(now: Progress) -> None:
        if now.stage == "recover":
            os.kill(_pid_of(watched[0]), signal.SIGKILL)

    report = pipeline.run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", device="cpu", on_progress=killing)
    assert report.acceptance is not None


def _cancelling(_now: Progress) -> None:
    raise KeyboardInterrupt


def test_a_run_that_ends_early_ends_the_process(watched: list[Ahead], tiny_bert: Path, tiny_sst2: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", device="cpu", on_progress=_cancelling)
    (ahead,) = watched
    assert not ahead.process.runs
    assert not ahead.desk.folder.exists()


def test_a_process_that_cannot_import_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pruning_core.artifacts.ahead._STOCK", ("no_such_library",))
    with started(embeds=False) as ahead:
        ahead.settle()
        wait_until(lambda: not ahead.waits, "the process to end")
        assert "no_such_library" in ahead.desk.log.read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"target": {"metric": "latency", "keep": 0.9}},
        {"method": {"name": "block-lasso", "tier": "trained"}, "target": {"metric": "sparsity", "sparsity": 0.5}},
        {"recovery": {"heal": "distil"}},
    ],
)
def test_where_times_are_measured_from_the_start_on_or_work_is_long_none_is_started(
    change: dict[str, Any], watched: list[Ahead], tiny_bert: Path, tiny_sst2: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tiny.tiny_spec(tiny_bert, tiny_sst2, **change), tmp_path / "out", device="cpu", on_progress=_cancelling)
    assert not watched
