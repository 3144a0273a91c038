"""A quality metric, a type of task and a store are each one file and one row: each is added here, in the test alone.

What a file of its own would hold stands in this module, and a row goes into the table where it would stand. Nothing else of
the product is changed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from app import stores
from app.settings import Settings
from app.storage import ArtifactMissing, create_store
from app.storage.base import parts_of
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import DatasetInvalid, QualityFloorMissed
from pruning_core.run.pipeline import run
from pruning_core.shapes import Float
from pruning_core.spec import prune
from pruning_core.spec.labels import Inputs, Label, LabelKind
from pruning_core.spec.metrics import METRICS, QualityMetric
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import KINDS, TaskKind
from pruning_core.support import capabilities
from pruning_core.tasks.base import Judged, Observed
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.classification import Regression, labels
from pruning_core.tasks.scoring import Classes
from tests import tiny
from tests.store_contract import StoreContract, source

pytestmark = pytest.mark.usefixtures("proven_by_a_fork")

__all__ = ["source"]  # a fixture

HERE = __name__


def add_metric(monkeypatch: pytest.MonkeyPatch, name: str, row: QualityMetric) -> None:
    monkeypatch.setitem(cast("dict[str, QualityMetric]", METRICS), name, row)


def add_task(monkeypatch: pytest.MonkeyPatch, name: str, row: TaskKind) -> None:
    monkeypatch.setitem(cast("dict[str, TaskKind]", KINDS), name, row)
    # What the request makes of the table when it is imported.
    monkeypatch.setitem(cast("dict[str, str]", prune.AUTO_CLASSES), name, row.loads_as)


# --- a quality metric -------------------------------------------------------------------------------------------------


def mistakes(seen: Classes) -> float:
    """Count the wrong answers among a hundred."""
    return 100 * float((seen.found != seen.wanted).double().mean())


@pytest.fixture
def by_mistakes(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tiny_sst2: Path) -> dict[str, Any]:
    """A job that is judged by the metric, its row added."""
    add_metric(monkeypatch, "mistakes", QualityMetric({"classes": f"{HERE}:mistakes"}, least=0, most=100, lower_is_better=True))
    kind = KINDS["text-classification"]
    add_task(monkeypatch, "text-classification", replace(kind, metrics=(*kind.metrics, "mistakes")))
    columns = {"text": ["sentence"], "label": "label"}
    task = {"type": "text-classification", "dataset": str(tiny_sst2), "columns": columns, "metric": "mistakes"}
    return tiny.tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json") | {"task": task}


def test_a_metric_that_no_row_names_is_refused(tiny_bert: Path, tiny_sst2: Path) -> None:
    with pytest.raises(ValidationError, match=r"Input should be 'accuracy', .*'rougeL' or 'bleu'"):
        tiny.tiny_spec(tiny_bert, tiny_sst2, task={"name": "glue/sst2", "metric": "mistakes"})


@pytest.mark.long
def test_an_added_metric_judges_a_job(by_mistakes: dict[str, Any], tmp_path: Path) -> None:
    floor = {"kind": "absolute", "value": 100}
    report = run(PruneSpec.model_validate(by_mistakes | {"quality_floor": floor}), tmp_path / "out", device="cpu")
    assert report.quality.metric == "mistakes"
    assert report.quality.lower_is_better
    assert report.quality.label == "mistakes (less is better)"
    assert 0 < report.quality.pruned <= 100
    assert report.quality.kept == pytest.approx(report.quality.dense / report.quality.pruned)
    assert report.quality_floor is not None
    assert report.quality_floor.lower_is_better
    assert report.quality_floor.held
    assert "mistakes (less is better)" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.long
def test_the_floor_of_an_added_metric_is_the_most_that_is_allowed(by_mistakes: dict[str, Any], tmp_path: Path) -> None:
    spec = PruneSpec.model_validate(by_mistakes | {"quality_floor": {"kind": "absolute", "value": 0}})
    with pytest.raises(QualityFloorMissed, match="the floor is mistakes at most 0"):
        run(spec, tmp_path / "out", device="cpu")


def test_the_floor_of_an_added_metric_is_within_its_range(by_mistakes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="in mistakes must be between 0 and 100, got 101"):
        PruneSpec.model_validate(by_mistakes | {"quality_floor": {"kind": "absolute", "value": 101}})


@pytest.mark.usefixtures("by_mistakes")
def test_an_added_metric_is_told_of() -> None:
    info = next(own for own in capabilities.tasks() if own.name == "text-classification")
    assert info.metrics[-1] == "mistakes"
    assert info.options["properties"]["metric"]["enum"][-1] == "mistakes"
    assert info.model_dump(mode="json")["metrics"][-1] == "mistakes"


# --- a type of task, with labels of a new kind ------------------------------------------------------------------------


class IntervalLabel(LabelKind):
    """Two bounds that a score must stand between."""

    name = "interval"
    words = "objects {low: ..., high: ...}"

    def parse(self, value: object) -> Label | None:
        given = cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
        low, high = given.get("low"), given.get("high")
        return (float(low), float(high)) if isinstance(low, int | float) and isinstance(high, int | float) else None

    def fault(self, inputs: Inputs, labels: Sequence[Label]) -> str | None:
        bounds = cast("Sequence[tuple[float, float]]", labels)
        crossed = next((row for row, (low, high) in enumerate(bounds) if low > high), None)
        return None if crossed is None else f"the bounds of row {crossed} are crossed"


@dataclass(frozen=True, slots=True)
class Within:
    """Scores, and the bounds that they should stand between."""

    found: Float[Tensor, " n"]
    bounds: Float[Tensor, "n 2"]


def share_within(seen: Within) -> float:
    """Compute the share of scores that stand within their bounds."""
    return float(((seen.found >= seen.bounds[:, 0]) & (seen.found <= seen.bounds[:, 1])).double().mean())


class Intervals(Regression):
    """A score that must stand between two bounds."""

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Give the squared distance to the nearer bound."""
        bounds, scores = labels(batch), outputs.squeeze(-1)
        return (bounds[:, 0] - scores).clamp_min(0).square() + (scores - bounds[:, 1]).clamp_min(0).square()

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Put the scores beside their bounds."""
        assert finding == "within"
        bounds = self.labels_of(seen.rows)
        assert bounds is not None
        dense, pruned = (Within(torch.stack(list(own))[:, 0], bounds) for own in (seen.dense, seen.pruned))
        return Judged(dense, pruned, len(seen.rows), {"mean": float(pruned.found.mean())})


def write_intervals(folder: Path, label: object = None) -> Path:
    folder.mkdir()
    rng = random.Random(5)
    for split in ("train", "validation"):
        rows: list[dict[str, object]] = []
        for _ in range(80):
            words = rng.choices(tiny.WORDS, k=rng.randint(3, 20))
            own = {"low": -1.0, "high": 1.0} if "good" in words else {"low": -0.5, "high": 0.25}
            rows.append({"text": " ".join(words), "bounds": own if label is None else label})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A job of the task, its row added, and that of its metric."""
    add_metric(monkeypatch, "within", QualityMetric({"within": f"{HERE}:share_within"}, least=0))
    add_task(
        monkeypatch,
        "interval-regression",
        TaskKind(
            family=f"{HERE}:Intervals",
            loads_as="AutoModelForSequenceClassification",
            head=("ForSequenceClassification",),
            outputs="one",
            pipeline="text-classification",
            inputs=("a text",),
            labels=IntervalLabel(),
            metrics=("within",),
            findings=("within",),
        ),
    )
    model = tiny.write_model(tmp_path / "model", "bert", num_labels=1)
    columns = {"text": ["text"], "label": "bounds"}
    data = write_intervals(tmp_path / "data")
    task = {"type": "interval-regression", "dataset": str(data), "columns": columns, "metric": "within"}
    return {
        "model": str(model),
        "task": task,
        "target": {"metric": "macs", "keep": 0.5},
        "method": {"name": "fisher-cg", "labels": "use"},
        "calibration": {"samples": 32, "max_length": 32},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
    }


@pytest.mark.long
def test_an_added_task_runs_from_the_request_to_the_report(intervals: dict[str, Any], tmp_path: Path) -> None:
    spec = PruneSpec.model_validate(intervals)
    assert PruneSpec.model_validate_json(spec.model_dump_json()) == spec
    check_local_inputs(spec)
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.target.met
    assert report.task == "interval-regression"
    assert report.quality.metric == "within"
    assert 0 < report.quality.dense <= 1
    assert set(report.quality.details) == {"mean"}
    assert report.acceptance.max_difference <= 1e-4
    assert "pipeline_tag: text-classification" in (tmp_path / "out" / "README.md").read_text()


def test_what_does_not_fit_an_added_task_is_refused_in_its_own_words(intervals: dict[str, Any], tmp_path: Path) -> None:
    task = intervals["task"]
    guessed = check_local_inputs(PruneSpec.model_validate(intervals | {"task": task | {"columns": {"text": ["text"]}}}))
    assert guessed.spec.task.columns.label == task["columns"]["label"], "the only column that holds such labels"
    with pytest.raises(ValidationError, match="metric of a interval-regression task must be one of within, got f1"):
        PruneSpec.model_validate(intervals | {"task": task | {"metric": "f1"}})
    numbers = write_intervals(tmp_path / "numbers", 0.5)
    with pytest.raises(DatasetInvalid, match=r"'bounds' holds numbers; a interval-regression task needs objects \{low"):
        check_local_inputs(PruneSpec.model_validate(intervals | {"task": task | {"dataset": str(numbers)}}))
    model = tiny.write_model(tmp_path / "classes", "bert", num_labels=3)
    with pytest.raises(DatasetInvalid, match="interval-regression needs a model with one output, this one has 3"):
        check_local_inputs(PruneSpec.model_validate(intervals | {"model": str(model)}))
    for name, label, words in (
        ("half", {"low": 1}, "holds lists or objects; a interval"),
        ("crossed", {"low": 1, "high": 0}, "row 0"),
    ):
        data = write_intervals(tmp_path / name, label)
        with pytest.raises(DatasetInvalid, match=words):
            run(PruneSpec.model_validate(intervals | {"task": task | {"dataset": str(data)}}), tmp_path / "out", device="cpu")


@pytest.mark.usefixtures("intervals")
def test_an_added_task_is_told_of() -> None:
    info = capabilities.tasks()[-1]
    assert (info.name, info.label, info.metrics) == ("interval-regression", "objects {low: ..., high: ...}", ("within",))
    assert info.options["properties"]["type"]["enum"][-1] == "interval-regression"


# --- a store ----------------------------------------------------------------------------------------------------------


class MemoryStore:
    """A store in memory."""

    def __init__(self, url: str) -> None:
        self.name = url.removeprefix("memory://")
        self._files: dict[str, bytes] = {}

    def put(self, key: str, source: Path) -> tuple[int, str]:
        name, content = "/".join(parts_of(key)), source.read_bytes()
        self._files[name] = content
        return len(content), hashlib.sha256(content).hexdigest()

    def open(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        name = "/".join(parts_of(key))
        if name not in self._files:
            raise ArtifactMissing(key)
        return iter([self._files[name][start:stop]] if stop > start else [])

    def keys(self, prefix: str, *, after: str, limit: int) -> list[str]:
        under = [key for key in sorted(self._files) if PurePosixPath(prefix) in PurePosixPath(key).parents]
        return [key for key in under if key > after][:limit]

    def delete_prefix(self, prefix: str) -> None:
        self._files = {key: own for key, own in self._files.items() if PurePosixPath(prefix) not in PurePosixPath(key).parents}

    def check(self) -> None:
        """Nothing can be wrong with it."""


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, stores.StoreKind]:
    """The table of stores, a row added."""
    table = cast("dict[str, stores.StoreKind]", stores.STORES)
    monkeypatch.setitem(table, "memory", stores.StoreKind(made_by=f"{HERE}:MemoryStore", shape="memory://name"))
    return table


class TestAnAddedStore(StoreContract):
    """It inherits the contract of every store."""

    @pytest.fixture
    def store(self, memory: dict[str, stores.StoreKind], tmp_path: Path) -> MemoryStore:
        """The store as the settings name it."""
        assert "memory" in memory
        found = create_store(Settings(data_dir=tmp_path, artifacts_url="memory://one"))
        assert isinstance(found, MemoryStore)
        assert found.name == "one"
        return found


def test_a_store_that_no_row_names_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"must be s3://bucket or s3://bucket/prefix, or empty for a folder"):
        Settings(artifacts_url="memory://one")


def test_a_store_without_its_client_says_what_to_install(memory: dict[str, stores.StoreKind]) -> None:
    memory["memory"] = replace(memory["memory"], client="no_such_module", extra="memory")
    with pytest.raises(ValidationError, match=r"an object store needs a client: pip install .*\[memory\]"):
        Settings(artifacts_url="memory://one")
    with pytest.raises(ValidationError, match=r"must be s3://bucket or s3://bucket/prefix or memory://name, or empty"):
        Settings(artifacts_url="memory://")
    assert "or memory://name." in stores.described()


# --- the tables -------------------------------------------------------------------------------------------------------


def test_every_row_names_what_there_is() -> None:
    from pruning_core.tasks.registry import family_of
    from pruning_core.tasks.scoring import metric_of

    for name, kind in KINDS.items():
        assert family_of(name).__class__.__name__ == kind.family.partition(":")[2]
        for metric in kind.metrics:
            found = [own for own in kind.findings if own in METRICS[metric].computed]
            assert len(found) == 1, f"{metric} of {name}"
    for name, metric in METRICS.items():
        assert all(callable(metric_of(name, own)) for own in metric.computed)
        assert any(name in kind.metrics for kind in KINDS.values())
