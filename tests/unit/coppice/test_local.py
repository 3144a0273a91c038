"""Pruning without a server, from Python: the same pipeline, typed, with progress and cancellation."""

from __future__ import annotations

import builtins

import pytest
from pydantic import ValidationError

from coppice.errors import CoppiceError
from coppice.local import Cancelled, calibrate, prune
from pruning_core.errors import ModelUnreadable
from tests.tiny import tiny_spec


@pytest.fixture(autouse=True)
def _forked(proven_by_a_fork):
    del proven_by_a_fork


@pytest.mark.long
def test_a_run_starts_from_what_a_calibration_has_kept(tiny_bert, tiny_sst2, tmp_path):
    spec = tiny_spec(tiny_bert, tiny_sst2)
    seen = []
    told = calibrate(spec, tmp_path / "kept", device="cpu", threads=1)
    report = prune(
        spec.model_dump(mode="json"),
        str(tmp_path / "out"),
        statistics=str(tmp_path / "kept"),
        device="cpu",
        threads=1,
        on_progress=seen.append,
    )
    assert report.statistics is not None
    assert {own.kind for own in report.statistics.pieces if own.reused} == {own.kind for own in told.pieces}
    assert seen[-1].stage == "bundle"
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_cancelled_run_leaves_nothing(tiny_bert, tiny_sst2, tmp_path):
    steps = []

    def cancelled() -> bool:
        steps.append(1)
        return len(steps) > 5

    with pytest.raises(Cancelled):
        prune(tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", device="cpu", cancelled=cancelled)
    with pytest.raises(Cancelled):
        calibrate(tiny_spec(tiny_bert, tiny_sst2), tmp_path / "kept", device="cpu", cancelled=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_told(tiny_bert, tiny_sst2, tmp_path):
    with pytest.raises(ValidationError, match="sparsty"):
        prune({"model": str(tiny_bert), "task": "glue/sst2", "data": str(tiny_sst2), "sparsty": 0.5}, tmp_path / "out")
    with pytest.raises(ModelUnreadable):
        prune(tiny_spec(tmp_path / "nowhere", tiny_sst2), tmp_path / "out")


@pytest.mark.parametrize("call", [prune, calibrate])
def test_without_the_extra_it_says_what_to_install(call, tiny_bert, tiny_sst2, tmp_path, monkeypatch):
    real = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name.startswith("pruning_core.kept"):
            raise ImportError("No module named 'torch'", name="torch")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(CoppiceError, match=r"needs torch, which is not installed: pip install '.*\[prune\]'"):
        call(tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out")
