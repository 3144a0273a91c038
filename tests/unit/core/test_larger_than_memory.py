"""A model several times larger than the memory that the kernel lets the job have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.deep import Size, deep_spec, run_job, write_deep_model
from tests.memory_limit import can_limit

TIMES = 4


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not can_limit(), reason="this machine does not let us make control groups of memory")
def test_a_model_four_times_the_room_for_its_weights_is_pruned_and_proven(tmp_path: Path):
    tiny.write_dataset(tmp_path / "data")
    write_deep_model(tmp_path / "shallow", Size(2, 512, 1024))
    weights = 4 * write_deep_model(tmp_path / "deep", Size(96, 512, 1024))
    assert len(list((tmp_path / "deep").glob("*.safetensors"))) > 1

    def job(model: str, kind: str, limit: int | None):
        spec = deep_spec(tmp_path / model, tmp_path / "data", kind, method="magnitude")
        return run_job(spec, tmp_path / f"{model}-{kind}", limit)

    base, _ = job("shallow", "paged", None)
    limit = base.anonymous + weights // TIMES
    resident, none = job("deep", "resident", limit)
    assert resident.status != 0, "the weights alone are larger than the limit"
    assert none is None
    done, report = job("deep", "auto", limit)
    assert done.status == 0, done.output + done.errors
    assert report is not None
    assert report["memory"]["weights"] == "paged"
    assert any("one block at a time was read" in said for said in report["warnings"])
    assert report["target"]["achieved"] <= 0.5
    assert report["acceptance"]["max_difference"] <= report["acceptance"]["tolerance"]
    assert len(list((tmp_path / "deep-auto").glob("*.safetensors"))) > 1
