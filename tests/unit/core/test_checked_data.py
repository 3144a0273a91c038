"""The check of a data set: it reads what the job reads, within a time, and says what it did not look at."""

from __future__ import annotations

import time

import pytest

from pruning_core.checks import data as checked
from pruning_core.checks.request import check_local_inputs
from pruning_core.data.read import Budget
from pruning_core.errors import DatasetInvalid, MetricUndefined, PruningError, QualityFloorMissed
from pruning_core.report.report import QualityReport
from pruning_core.run.candidate import check_floor
from pruning_core.run.pipeline import run
from pruning_core.spec.artifacts import QualityFloor
from tests import tasks, tiny
from tests.unit.core.test_meaning import NAMES, THREE, model_with, spec_of, write
from tests.unit.core.test_task_input import lines


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "text-classification": model_with(root / "two", NAMES),
        "multi-label-classification": model_with(root / "three", THREE),
        "regression": model_with(root / "one", ("score",)),
    }


# A label column, and the others of its kind that are told apart by the last row alone.
FORMS = {
    "text-classification": [
        ["negative", "positive"], ["Positive", "negative"], ["1", "0"], [1, 0], [1.0, 0.0], [True, False], ["positive", "odd"],
        [0, 2], [0, -2], [0.5, 1], [[1], [0]], [{"a": 1}, 0], ["positive", 1], [None, "negative"], [-1, -1], ["", " "],
        [10**400, 0], [1e30, 0], ["0x1", "1"], ["١", "0"],
    ],
    "multi-label-classification": [
        [[1, 0, 0], [0, 1, 1]], [[1.0, 0.0, 0.0], [0, 0, 0]], [["a"], ["c", "b"]], [[0], [2]], [[3], [0]], [[], []],
        [[0, 1], [1]],
        [[1, 0], [0, 0]], [["a", 1], [True, False, True]], ["[0]", "[1, 2]"], ["a;b", "c"], [[None], [0]],
        [[0.5, 0, 0], [1, 0, 0]],
        [[-1], [0]], [[[0]], [[1]]],
    ],
    "regression": [[0.5, 2], ["1.5", "2"], ["a", "b"], [1, 1], [float("nan"), 1], [float("inf"), 1], [None, 2.0], [[1], [2]]],
}  # fmt: skip


class _ReachedError(Exception):
    """The job has read its data and begins to work."""


def job_refusal(spec, out, monkeypatch):
    """Run the job alone up to its calibration, as with a data set of the Hub, which no check sees. Return what it refuses."""

    def stop(progress):
        if progress.stage == "calibrate":
            raise _ReachedError

    monkeypatch.setattr("pruning_core.run.pipeline.check_local_inputs", lambda _spec: None)
    try:
        run(spec, out, device="cpu", on_progress=stop)
    except PruningError as error:
        return error.message, error.param, error.code
    except _ReachedError:
        return None
    raise AssertionError("a job has a calibration")


def check_refusal(spec):
    try:
        check_local_inputs(spec)
    except PruningError as error:
        return error.message, error.param, error.code
    return None


@pytest.mark.parametrize(
    ("task_type", "labels"), [(name, labels) for name, forms in FORMS.items() for labels in forms], ids=str
)
def test_the_check_and_the_job_agree(task_type, labels, models, tmp_path, monkeypatch):
    """Whatever stands in the label column, the job refuses what the check refuses, in the same words, and nothing else."""
    spec = spec_of(write(tmp_path / "data", labels * 6), task_type, model=models[task_type])
    assert check_refusal(spec) == job_refusal(spec, tmp_path / "out", monkeypatch)


def test_what_was_not_looked_at_is_said(models, tmp_path, monkeypatch):
    labels = [at % 2 for at in range(3000)]
    spec = spec_of(write(tmp_path / "data", labels), model=models["text-classification"])
    assert check_local_inputs(spec).findings.not_looked_at == ()
    monkeypatch.setattr(checked, "_BUDGET", Budget(seconds=9, characters=10_000))
    found = check_local_inputs(spec).findings
    assert found.rows == {"train": 3000, "validation": 3000}
    assert found.classes == {"negative": 1500, "positive": 1500}
    assert [said.rpartition(" ")[0] for said in found.not_looked_at] == [
        "text of the training rows after the first", "text of the validation rows after the first"
    ]  # fmt: skip
    write(tmp_path / "data", [*labels, 7])
    with pytest.raises(DatasetInvalid, match="label 7 is no class of the model"):  # its text was not read, its label was
        check_local_inputs(spec)
    monkeypatch.setattr(checked, "_LABELS_S", 0)
    found = check_local_inputs(spec).findings
    assert found.rows == {"train": None, "validation": None}
    assert any("labels of the training rows after the first" in said for said in found.not_looked_at)


@pytest.mark.long
def test_a_check_of_much_data_takes_two_seconds(models, tmp_path):
    spec = spec_of(
        write(tmp_path / "data", [at % 2 for at in range(200_000)], text="word1 " * 100), model=models["text-classification"]
    )
    began = time.process_time()
    found = check_local_inputs(spec).findings
    assert time.process_time() - began < 4, "of a processor; the budget is 1.8 s of wall time, and this host may be busy"
    assert found.not_looked_at
    assert all("after the first" in said for said in found.not_looked_at)


def test_a_model_of_the_hub_is_not_looked_at(tmp_path):
    spec = spec_of(write(tmp_path / "data", ["x", "y"])).but(model="org/name")
    found = check_local_inputs(spec).findings
    assert found.not_looked_at == (
        "the model, which is on the Hub",
        "labels against the model's classes: the model is on the Hub",
    )


@pytest.mark.parametrize("labels", [[3.0] * 8, [3.0]])
@pytest.mark.parametrize("task_type", ["regression", "sentence-similarity"])
def test_scores_that_are_all_alike_are_refused_before_any_work(task_type, labels, models, tmp_path):
    rows = [{"text": f"word{at}", "other": "good", "score": score} for at, score in enumerate(labels)]
    data = lines(tmp_path / "data", *rows)
    if task_type == "regression":
        spec = spec_of(data, task_type, model=models[task_type], columns={"text": ["text"], "label": "score"})
    else:
        model = tasks.write_task_model(tmp_path / "model", task_type)
        spec = tiny.tiny_spec(model, data, task=tasks.task_of(task_type, data))
    with pytest.raises(DatasetInvalid, match=r"one and the same score, and the rank correlation .* is undefined"):
        check_local_inputs(spec)


def test_only_the_rows_that_are_judged_count(models, tmp_path):
    data = write(tmp_path / "data", [1.0, 1.0, 2.0])
    spec = spec_of(data, "regression", model=models["regression"])
    check_local_inputs(spec)
    with pytest.raises(DatasetInvalid, match="the 2 validation rows that are judged"):
        check_local_inputs(spec.but(evaluation={"max_samples": 2}))


def test_scores_of_a_model_that_are_all_alike(models, tmp_path):
    """A constant model has no rank correlation: the dense one is refused; a pruned one counts as 0, and that is said."""
    import torch
    from safetensors.torch import load_file, save_file

    from pruning_core.tasks.scoring import Scores, spearman

    alike = Scores(torch.ones(4), torch.arange(4.0))
    assert spearman(alike) != spearman(alike), "it is NaN"
    model = model_with(tmp_path / "model", ("score",))
    weights = load_file(model / "model.safetensors")
    weights["classifier.weight"].zero_()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    spec = spec_of(write(tmp_path / "data", [at / 9 for at in range(20)]), "regression", model=model)
    with pytest.raises(MetricUndefined, match=r"spearman of the dense model on 20 samples .* is undefined: its scores are all"):
        run(spec, tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    ("labels", "metric", "says"),
    [
        ([0] * 12, "f1", "no validation row is of class 'positive', which f1 counts, so that f1 is 0 whatever a model answers"),
        ([1] * 12, "matthews", "all validation rows that are judged are of one class, so that matthews is 0"),
    ],
)
@pytest.mark.long
def test_metrics_that_are_the_same_for_every_model_are_said(labels, metric, says, models, tmp_path):
    spec = spec_of(write(tmp_path / "data", labels), model=models["text-classification"], metric=metric)
    assert any(says in note for note in check_local_inputs(spec).findings.notes)
    assert any(says in warning for warning in run(spec, tmp_path / "out", device="cpu").warnings)
    with pytest.raises(MetricUndefined, match=rf"the dense model's {metric} is 0\.0000, and a share of that is no floor"):
        run(spec.but(quality_floor=0.9), tmp_path / "floored", device="cpu")


@pytest.mark.parametrize(
    ("dense", "lower", "kind", "refused"),
    [(0.0, False, "relative", True), (-0.2, False, "relative", True), (0.1, False, "relative", False),
     (0.0, False, "absolute", False), (0.0, True, "relative", False)],
)  # fmt: skip
def test_a_share_of_nothing_is_no_floor(dense, lower, kind, refused):
    quality = QualityReport(metric="matthews", dense=dense, pruned=dense, samples=4, lower_is_better=lower)
    floor = QualityFloor(kind=kind, value=0.9)
    if not refused:
        check_floor(floor, quality)
        return
    with pytest.raises(MetricUndefined, match="give an absolute quality_floor"):
        check_floor(floor, quality)
    assert not issubclass(MetricUndefined, QualityFloorMissed)
