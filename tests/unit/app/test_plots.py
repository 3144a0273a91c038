"""Charts: marks stand where their figures are, and beside it where others are there."""

from __future__ import annotations

import math

from app.web.plots import HEIGHT, WIDTH, Datum, scatter


def drawn(places: list[tuple[float, float]]):
    data = [Datum(x, y, number, 0, f"{number}") for number, (x, y) in enumerate(places, start=1)]
    chart = scatter(data, 0.9, as_percent=True)
    assert chart is not None
    return chart.marks


def test_marks_that_are_apart_stay_where_they_are():
    assert not any(mark.is_moved for mark in drawn([(0.3, 0.8), (0.5, 0.85), (0.9, 0.89)]))


def test_marks_never_hide_each_other():
    marks = drawn([(0.5, 0.8)] * 12 + [(0.51, 0.8), (1.0, 0.9), (1.0, 0.9), (0.0, 0.8), (0.0, 0.8)])
    assert {(mark.true_x, mark.true_y) for mark in marks[:12]} == {(marks[0].true_x, marks[0].true_y)}
    for mark in marks:
        others = [other for other in marks if other is not mark]
        assert min(math.dist((mark.x, mark.y), (other.x, other.y)) for other in others) >= 17.9
        assert 0 <= mark.x <= WIDTH
        assert 0 <= mark.y <= HEIGHT
        assert math.dist((mark.x, mark.y), (mark.true_x, mark.true_y)) < 60
