"""Floors that are held by an interval, and the search for the smallest model on halves of the rows."""

import pytest
import torch

from pruning_core.data.rows import Rows
from pruning_core.measure.halves import LEAST_ROWS_TO_HALVE, halved
from pruning_core.report.quality_words import floor_words
from pruning_core.spec.artifacts import QualityFloor
from pruning_core.tasks.scoring import Tokens
from tests.compared import classes_of, judge


def _floor(**fields):
    return QualityFloor.model_validate(fields)


def test_a_floor_with_a_confidence_is_held_by_the_lower_end():
    wanted = [1] * 100
    found = judge("text-classification", "accuracy", *classes_of(wanted, [1] * 92 + [0] * 8, [1] * 90 + [0] * 10))
    low = found.quality.interval_pruned.low
    plain, sure = (found.floor(_floor(kind="absolute", value=0.88, confidence=own)) for own in (None, 0.95))
    assert plain.held
    assert plain.bound is None
    assert sure.bound == low
    assert low < 0.88
    assert not sure.held
    assert found.floor(_floor(kind="absolute", value=low, confidence=0.95)).held


def test_a_relative_floor_is_judged_on_the_same_rows():
    """The dense model's errors are the pruned one's, too: their difference is far surer than either quality."""
    wanted = [1] * 400
    found = judge("text-classification", "accuracy", *classes_of(wanted, [1] * 300 + [0] * 100, [1] * 299 + [0] * 101))
    floor = found.floor(_floor(value=0.97, confidence=0.95))
    assert floor.required == pytest.approx(0.97 * 0.75)
    assert found.quality.interval_pruned.low < floor.required < floor.bound
    assert floor.held
    assert not found.floor(_floor(value=1.0, confidence=0.95)).held


def test_a_floor_of_less_is_better_is_judged_by_the_upper_end():
    counts, generator = torch.full((60,), 10.0, dtype=torch.float64), torch.Generator().manual_seed(0)
    noise = torch.rand(60, generator=generator, dtype=torch.float64)
    sides = [
        Tokens(float(own.mean()), counts.long(), counts.long(), rows=(10 * own, counts)) for own in (2 + noise, 2.03 + noise)
    ]
    found = judge("text-generation", "perplexity", *sides)
    relative, absolute = (
        found.floor(_floor(**own, confidence=0.9)) for own in ({"value": 0.98}, {"kind": "absolute", "value": 99})
    )
    assert absolute.bound > found.quality.pruned
    assert not relative.held
    assert absolute.held


def test_without_an_interval_a_floor_with_a_confidence_is_not_held():
    found = judge("text-classification", "accuracy", *classes_of([1] * 5, [1] * 5, [1] * 5))
    floor = found.floor(_floor(value=0.5, confidence=0.95))
    assert floor.bound is None
    assert not floor.held
    assert "there is none" in floor_words(floor)


# --- halves -----------------------------------------------------------------------------------------------------------


def _rows(labels):
    return Rows(tuple((str(row),) for row in range(len(labels))), tuple(labels))


def test_halves_share_no_row_and_have_the_same_classes():
    rows = _rows([0] * 150 + [1] * 90 + [2] * 11)
    found = halved(rows, 0, in_order=False)
    assert found.apart
    texts = [{text for (text,) in half.texts} for half in (found.selecting, found.judging)]
    assert not texts[0] & texts[1]
    assert len(texts[0] | texts[1]) == 251
    for label in (0, 1, 2):
        counts = [half.labels.count(label) for half in (found.selecting, found.judging)]
        assert abs(counts[0] - counts[1]) <= 1
    assert halved(rows, 0, in_order=False) == found
    assert halved(rows, 1, in_order=False) != found


def test_halves_of_rows_that_continue_each_other_stay_in_order():
    found = halved(_rows([0.5] * 201), 3, in_order=True)
    assert [int(text) for (text,) in found.selecting.texts] == list(range(100))
    assert [int(text) for (text,) in found.judging.texts] == list(range(100, 201))


def test_too_few_rows_are_not_halved():
    rows = _rows([0, 1] * (LEAST_ROWS_TO_HALVE // 2 - 1))
    found = halved(rows, 0, in_order=False)
    assert not found.apart
    assert found.selecting is found.judging is rows
