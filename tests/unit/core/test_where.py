"""Where quality was lost: by hand, on odd input, and through a job."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pruning_core.data.rows import Rows
from pruning_core.measure.where import BINS, by_class, by_length, calibration_error, changed_most, taken, where_lost
from pruning_core.run.pipeline import run
from pruning_core.tasks.base import Judged, Observed
from pruning_core.tasks.batch import Encoded
from pruning_core.tasks.scoring import Classes, Decisions, Replies, Scores, Texts
from tests import tiny
from tests.compared import classes_of, spec_of

NAMES = ("no", "yes", "maybe")
ACCURACY = spec_of("text-classification", "accuracy")


def seen_of(lengths, names=NAMES):
    texts = tuple((f"text {row}",) for row in range(len(lengths)))
    encoded = Encoded(None, {"input_ids": [range(length) for length in lengths]}, None)
    return Observed([], [], encoded, Rows(texts, None, names))


def judged_of(dense, pruned):
    return Judged(dense, pruned, 0, {})


def test_classes_by_hand():
    wanted, dense, pruned = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 0, 0, 0]
    yes, no = by_class(*classes_of(wanted, dense, pruned, classes=3), NAMES)
    assert (yes.name, no.name) == ("yes", "no"), "the class that lost more recall is first; one that nobody names is left out"
    assert (yes.support, yes.dense_recall, yes.pruned_recall) == (4, 1, 0.25)
    assert (yes.dense_precision, yes.pruned_precision) == (0.8, 1)
    assert (no.dense_recall, no.pruned_recall) == (0.75, 1)
    assert no.pruned_precision == pytest.approx(4 / 7, abs=1e-6)


def test_shares_of_nothing_are_none():
    found = {own.name: own for own in by_class(*classes_of([0, 0], [1, 1], [0, 0]), NAMES)}
    assert found["no"].dense_precision is None, "the dense model never answers it"
    assert found["yes"].dense_recall is None, "no row has it"
    assert found["yes"].pruned_precision is None


def test_calibration_by_hand():
    # Four answers of confidence 0.9, of which three are right: in one bin, 0.9 - 0.75 apart.
    logits = torch.log(torch.tensor([[0.9, 0.1]] * 4))
    assert calibration_error(Classes(logits, torch.tensor([0, 0, 0, 1]))) == pytest.approx(0.15, abs=1e-6)
    sure = torch.tensor([[100.0, 0.0]] * 5)
    assert calibration_error(Classes(sure, torch.zeros(5).long())) == pytest.approx(0, abs=1e-6)
    assert calibration_error(Classes(torch.log(torch.tensor([[0.9, 0.1], [0.6, 0.4]])), torch.tensor([0, 1]))) == pytest.approx(
        (0.1 + 0.6) / 2, abs=1e-6
    ), f"{BINS} bins keep the two apart"


def test_quarters_by_length_hold_every_row_once():
    lengths = list(range(1, 41))
    wanted, pruned = [1] * 40, [1] * 30 + [0] * 10
    found = by_length(ACCURACY, judged_of(*classes_of(wanted, wanted, pruned)), seen_of(lengths))
    assert [part.rows for part in found] == [10, 10, 10, 10]
    assert [part.name for part in found] == ["1 to 10 tokens", "11 to 20 tokens", "21 to 30 tokens", "31 to 40 tokens"]
    assert [part.pruned for part in found] == [1, 1, 1, 0]
    assert found[-1].high is not None
    assert found[-1].high < 0


@pytest.mark.parametrize("lengths", [[7] * 30, [7]])
def test_rows_of_one_length_have_no_quarters(lengths):
    wanted = [1] * len(lengths)
    assert by_length(ACCURACY, judged_of(*classes_of(wanted, wanted, wanted)), seen_of(lengths)) == []


def test_a_quarter_of_one_row_has_no_interval_and_no_crash():
    found = by_length(ACCURACY, judged_of(*classes_of([1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1])), seen_of([1, 2, 3, 4]))
    assert [part.rows for part in found] == [1, 1, 1, 1]
    assert all(part.low is None for part in found)
    spearman = spec_of("regression", "spearman")
    truth = torch.arange(4.0)
    odd = by_length(spearman, judged_of(Scores(truth, truth), Scores(truth, truth)), seen_of([1, 2, 3, 4]))
    assert [(part.dense, part.pruned) for part in odd] == [(None, None)] * 4, "one score has no rank correlation"


def test_rows_that_changed_most_are_first_and_texts_are_cut():
    sure = torch.tensor([[2.0, 0], [0, 2.0], [2.0, 0], [2.0, 0]])
    turned = torch.tensor([[0, 9.0], [0, 2.0], [0, 0.1], [1.0, 0]])  # row 0 far, row 2 barely; row 3 changes no answer
    wanted = torch.tensor([0, 1, 1, 0])
    rows = Rows((("a" * 400,), ("b",), ("c",), ("d",)), None, NAMES)
    found = changed_most(ACCURACY, judged_of(Classes(sure, wanted), Classes(turned, wanted)), rows)
    assert [own.row for own in found] == [0, 2]
    assert len(found[0].texts[0]) == 300
    assert (found[0].dense, found[0].pruned, found[0].wanted) == ("no (0.88)", "yes (1.00)", "no")
    one = spec_of("text-classification", "accuracy", evaluation={"examples": 1})
    assert [own.row for own in changed_most(one, judged_of(Classes(sure, wanted), Classes(turned, wanted)), rows)] == [0]
    none = spec_of("text-classification", "accuracy", evaluation={"examples": 0})
    assert changed_most(none, judged_of(Classes(sure, wanted), Classes(turned, wanted)), rows) == []


@pytest.mark.parametrize(
    ("kind", "metric", "dense", "pruned", "said"),
    [
        (
            "multi-label-classification",
            "f1",
            Decisions(torch.tensor([[True, False], [True, True]]), torch.tensor([[True, False]] * 2)),
            Decisions(torch.tensor([[True, False], [False, False]]), torch.tensor([[True, False]] * 2)),
            [("no", "no, yes", "none")],
        ),
        (
            "regression",
            "spearman",
            Scores(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5])),
            Scores(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 2.5])),
            [("2.5", "2", "5")],
        ),
        (
            "question-answering",
            "f1",
            Replies(["red fox", "b"], [("red fox",), ()]),
            Replies(["fox", "b"], [("red fox",), ()]),
            [("red fox", "red fox", "fox")],
        ),
        ("summarization", "rougeL", Texts(["a b", "c"], ["a b", "c"]), Texts(["a", "c"], ["a b", "c"]), [("a b", "a b", "a")]),
    ],
)
def test_answers_of_each_kind_are_shown(kind, metric, dense, pruned, said):
    rows = Rows((("t", "u"), ("v", "w")), None, NAMES)
    found = changed_most(spec_of(kind, metric), judged_of(dense, pruned), rows)
    assert [(own.wanted, own.dense, own.pruned) for own in found] == said


def test_findings_that_are_no_rows_have_no_parts():
    assert taken(object(), np.arange(1)) is None
    assert where_lost(spec_of("feature-extraction", "cosine"), judged_of(object(), object()), seen_of([1, 2])) is None


@pytest.mark.usefixtures("proven_by_a_fork")
@pytest.mark.long
def test_a_job_tells_where_it_hurts_and_keeps_rows_out_of_the_card(tiny_bert: Path, tiny_sst2: Path, tmp_path: Path) -> None:
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "macs", "keep": 0.15}, recovery={"kind": "none"})
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.where is not None
    assert sum(own.support for own in report.where.classes) == report.quality.samples
    assert report.where.calibration is not None
    assert report.where.calibration.bins == BINS
    assert report.quality.changed is not None
    assert len(report.where.examples) == min(20, report.quality.changed.answers)
    page, card = ((tmp_path / "out" / name).read_text() for name in ("report.html", "README.md"))
    assert "Where it hurts" in page
    for own in report.where.examples:
        assert own.texts[0] not in card
    said = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "texts" not in json.dumps(said["quality"]), "events and webhooks have the quality, and no row"
