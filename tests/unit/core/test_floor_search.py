"""The search for the smallest model selects on one half of the rows and is judged on the other."""

import json
from pathlib import Path

import pytest

from pruning_core.errors import DatasetInvalid, QualityFloorMissed
from pruning_core.measure.halves import LEAST_ROWS_TO_HALVE
from pruning_core.run.pipeline import run
from tests import tiny

pytestmark = pytest.mark.usefixtures("proven_by_a_fork")


@pytest.fixture
def data(tmp_path: Path, tiny_sst2: Path) -> Path:
    """A data set with enough validation rows for two halves."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        table = pq.read_table(next(iter(sorted(tiny_sst2.glob(f"{split}*")))))
        times = -(-(LEAST_ROWS_TO_HALVE + 21) // len(table))
        pq.write_table(pa.concat_tables([table] * times), tmp_path / "data" / f"{split}.parquet")
    return tmp_path / "data"


def _spec(model: Path, data: Path, **fields: object):
    return tiny.tiny_spec(model, data, **{"target": None} | fields)


@pytest.mark.long
def test_what_is_reported_is_measured_on_rows_that_did_not_select(tiny_bert: Path, data: Path, tmp_path: Path) -> None:
    rows = 221
    spec = _spec(tiny_bert, data, quality_floor={"value": 0.5}, evaluation={"max_samples": rows})
    report = run(spec, tmp_path / "out", device="cpu")
    floor = report.quality_floor
    assert floor is not None
    assert floor.selected_on == 111
    assert report.quality.samples == 110
    assert floor.judged == 1
    assert floor.held
    assert not any("luckiest" in warning for warning in report.warnings)
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert said["quality"]["difference"]["confidence"] == 0.95
    assert "chosen on 111 other rows" in (tmp_path / "out" / "report.html").read_text()
    assert "On the same 110 validation samples" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.long
def test_with_few_rows_all_of_them_select_and_judge_and_it_is_said(tiny_bert: Path, tiny_sst2: Path, tmp_path: Path) -> None:
    report = run(_spec(tiny_bert, tiny_sst2, quality_floor={"value": 0.5}), tmp_path / "out", device="cpu")
    assert report.quality_floor is not None
    assert report.quality_floor.selected_on is None
    assert any("luckiest" in warning for warning in report.warnings)


@pytest.mark.long
def test_a_floor_that_cannot_be_sure_is_missed_and_says_by_what(tiny_bert: Path, data: Path, tmp_path: Path) -> None:
    floor = {"kind": "absolute", "value": 0.999, "confidence": 0.95}
    with pytest.raises(
        QualityFloorMissed, match=r"the lower end of its 95 % interval is 0\.\d{4}; keep more of the model, give"
    ):
        run(_spec(tiny_bert, data, quality_floor=floor), tmp_path / "out", device="cpu")


def test_too_few_rows_for_an_interval_are_refused_before_the_work(tiny_bert: Path, data: Path, tmp_path: Path) -> None:
    spec = _spec(
        tiny_bert,
        data,
        target={"metric": "macs", "keep": 0.5},
        quality_floor={"value": 0.9, "confidence": 0.95},
        evaluation={"max_samples": 9},
    )
    with pytest.raises(DatasetInvalid, match="needs at least 10 validation rows, got 9") as caught:
        run(spec, tmp_path / "out", device="cpu")
    assert caught.value.param == "quality_floor.confidence"
