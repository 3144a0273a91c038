"""Charts: the places of their marks. A chart is SVG in the page, coloured by its style sheet (docs/decisions/0050)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.web.formats import finite

# In pixels of a phone; on a larger screen charts are scaled up.
WIDTH, HEIGHT = 360, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 24, 36
_TICKS = 5
_APART = 18.0  # least distance of the middles of two marks
_RINGS = 12


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One checkpoint: where it is drawn, the number that the table knows it by, and its method's place in the legend.

    ``good``: it kept what was promised. ``true_x`` and ``true_y``: where its figures are; where others are there, it is drawn
    beside, with a line to its place.
    """

    x: float
    y: float
    number: int
    series: int
    spoken: str
    good: bool
    true_x: float
    true_y: float

    @property
    def is_moved(self) -> bool:
        """Whether it is drawn beside its place."""
        return (self.x, self.y) != (self.true_x, self.true_y)


@dataclass(frozen=True, slots=True)
class Scatter:
    """A chart of one figure against another; ``line`` is drawn through points that nothing marks."""

    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dense_y: float | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM
    top: int = _TOP
    line: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Datum:
    """One checkpoint to draw. It is left out where a number is missing. ``good``: it kept what was promised."""

    x: float | None
    y: float | None
    number: int
    series: int
    spoken: str
    good: bool = True


def scatter(data: Sequence[Datum], dense: float | None, *, as_percent: bool, lower_is_better: bool = False) -> Scatter | None:
    """Place the marks; None where nothing can be drawn.

    Args:
        data: The checkpoints.
        dense: The dense model's quality.
        lower_is_better: Whether the least quality is the best, and stands at the top.
        as_percent: Whether x is a share, and its axis goes from 0 to 1.
    """
    drawn = [(datum, datum.x, datum.y) for datum in data if finite(datum.x) is not None and finite(datum.y) is not None]
    points = [(datum, x, y) for datum, x, y in drawn if x is not None and y is not None]
    if not points:
        return None
    reference = finite(dense)
    ys = [y for _, _, y in points] + ([] if reference is None else [reference])
    xs = [0.0, max(1.0, *(x for _, x, _ in points))] if as_percent else [0.0, *(x for _, x, _ in points)]
    return _placed(points, xs, [min(ys) - 0.004, max(ys) + 0.004], reference, as_percent=as_percent, falls=lower_is_better)


def curve(line: Sequence[tuple[float, float]], data: Sequence[Datum]) -> Scatter:
    """Place a line over shares from 0 to 1, and marks beside it. Both axes begin at 0.

    Args:
        line: At least two points, (x, y).
        data: What is marked.
    """
    points = [(datum, datum.x, datum.y) for datum in data if datum.x is not None and datum.y is not None]
    ys = [y for _, y in line] + [y for _, _, y in points]
    return _placed(points, [0.0, 1.0], [min(0.0, *ys), max(*ys, 1e-3)], None, line=line, as_percent=True, falls=False)


def _placed(
    points: Sequence[tuple[Datum, float, float]],
    xs: Sequence[float],
    ys: Sequence[float],
    reference: float | None,
    *,
    as_percent: bool,
    falls: bool,
    line: Sequence[tuple[float, float]] = (),
) -> Scatter:
    """Place marks and a line between axes that enclose some values; where the y axis falls, the least value is at the top."""
    x_axis, y_axis = _axis(xs), _axis(ys)

    def across(value: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (value - x_axis[0]) / (x_axis[-1] - x_axis[0]), 1)

    def up(value: float) -> float:
        height = (value - y_axis[0]) / (y_axis[-1] - y_axis[0])
        return round(HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * (1 - height if falls else height), 1)

    digits = max(0, -math.floor(math.log10(y_axis[1] - y_axis[0]) + 1e-9))
    return Scatter(
        marks=_apart([(datum, across(x), up(y)) for datum, x, y in points]),
        x_ticks=tuple(Tick(across(value), f"{value:.0%}" if as_percent else f"{value:g}") for value in x_axis),
        y_ticks=tuple(Tick(up(value), f"{value:.{digits}f}") for value in y_axis),
        dense_y=None if reference is None else up(reference),
        line=tuple((across(x), up(y)) for x, y in line),
    )


def _apart(points: Sequence[tuple[Datum, float, float]]) -> tuple[Mark, ...]:
    """Draw marks that would hide each other beside their places: each where there is room, as near as can be."""
    taken: list[tuple[float, float]] = []
    marks: list[Mark] = []
    for datum, x, y in points:
        place = next((own for own in _around(x, y) if all(math.dist(own, other) >= _APART for other in taken)), (x, y))
        taken.append(place)
        marks.append(Mark(*place, datum.number, datum.series, datum.spoken, datum.good, x, y))
    return tuple(marks)


def _around(x: float, y: float) -> Iterator[tuple[float, float]]:
    """Yield a place, and then places on growing circles around it, within the chart."""
    yield x, y
    for ring in range(1, _RINGS + 1):
        count = 8 * ring
        for step in range(count):
            turn = 2 * math.pi * step / count
            near = (round(x + ring * _APART / 2 * math.cos(turn), 1), round(y - ring * _APART / 2 * math.sin(turn), 1))
            if _LEFT <= near[0] <= WIDTH - _RIGHT and _TOP <= near[1] <= HEIGHT - _BOTTOM:
                yield near


def _axis(values: Sequence[float]) -> list[float]:
    """Return round values at even distances that enclose all given values."""
    low, high = min(values), max(values)
    rough = max(high - low, 1e-6) / (_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]
