"""Charts of a report as inline SVG, drawn by matplotlib (docs/decisions/0010).

Each chart is drawn once and works in light, dark and print: its colours are placeholders that become CSS variables of the page,
and its texts stay text, in the page's font. Charts are as wide as a phone, and scaled up on larger screens.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pruning_core.report.ledger import LedgerRow
from pruning_core.report.ledger_words import short_name, worse_by_limits
from pruning_core.report.report import LayerReport, NormHistogram, QualityReport, SecondsReport, SublayerReport
from pruning_core.report.training import TrainingPoint

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_WIDTH = 340
_NEURONS = 76.0  # width of the column that shows the share of neurons
_FONT = 11.0
_AT_ZERO = 2.0  # how far above the lower end of a log axis zero is drawn

# Placeholder -> the page's CSS variable. The values are arbitrary, but must not occur elsewhere.
_INK, _MUTED, _LINE, _DENSE, _ACCENT, _WARN = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _LINE: "line", _DENSE: "dense", _ACCENT: "accent", _WARN: "warn"}

_STYLE: dict[RcKeyType, Any] = {
    "font.size": _FONT,
    "svg.fonttype": "none",
    "svg.hashsalt": "coppice",  # the same report gives the same bytes
    "path.simplify": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid.axis": "y",
    "grid.color": _LINE,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the comparison: the quantity, its share of the dense value, and both values as text."""

    label: str
    share: float
    values: str


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint of the frontier."""

    label: str
    macs_kept: float
    quality: float


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function to draw in the page's style, without changing matplotlib's global settings."""

    @wraps(draw)
    def within(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return within


@_styled
def comparison(bars: Sequence[Bar]) -> str:
    """Draw pruned beside dense values, each quantity on the scale of its dense value."""
    figure, axes = _figure(38 * len(bars) + 4)
    _bare(axes, (0, 1), (len(bars), 0))
    for row, bar in enumerate(bars):
        share = min(bar.share, 1.0)
        axes.add_patch(Rectangle((0, row + 0.47), 1, 0.3, color=_DENSE, linewidth=0))
        axes.add_patch(Rectangle((0, row + 0.47), share, 0.3, color=_ACCENT, linewidth=0))
        axes.text(0, row + 0.34, bar.label, va="bottom", ha="left")
        axes.text(1, row + 0.34, bar.values, va="bottom", ha="right", color=_MUTED)
    return _svg(figure, "Bars of pruned against dense: " + "; ".join(f"{bar.label} {bar.values}" for bar in bars))


@_styled
def structure(layers: Sequence[LayerReport]) -> str:
    """Draw the heads that stayed in each layer, and the share of its neurons."""
    heads = max(layer.dense_heads for layer in layers)
    cell = min(20.0, 220 / heads)
    row_height = max(9.0, min(20.0, cell))
    left, neurons_at = 24.0, _WIDTH - _NEURONS
    figure, axes = _figure(round(row_height * len(layers)) + 20)
    _bare(axes, (0, _WIDTH), (len(layers) * row_height, -20))
    axes.text(left, -7, "heads", color=_MUTED, fontsize=_FONT - 1)
    axes.text(neurons_at, -7, "neurons", color=_MUTED, fontsize=_FONT - 1)
    for row, layer in enumerate(layers):
        y = row * row_height
        middle = y + row_height / 2
        axes.text(0, middle, str(layer.layer + 1), va="center", color=_MUTED, fontsize=_FONT - 1)
        kept = set(layer.head_indices)
        for head in range(layer.dense_heads):
            color = _ACCENT if head in kept else _DENSE
            axes.add_patch(Rectangle((left + head * cell + 1, y + 1), cell - 2, row_height - 2, color=color, linewidth=0))
        share = layer.kept_neurons / max(1, layer.dense_neurons)
        axes.add_patch(Rectangle((neurons_at, y + 1), _NEURONS, row_height - 2, color=_DENSE, alpha=0.5, linewidth=0))
        axes.add_patch(Rectangle((neurons_at, y + 1), _NEURONS, row_height - 2, color=_ACCENT, alpha=0.75 * share, linewidth=0))
        axes.text(
            neurons_at + _NEURONS / 2,
            middle,
            f"{share:.0%}",
            va="center",
            ha="center",
            fontsize=min(_FONT - 1, row_height - 1.5),
        )
    spoken = "; ".join(
        f"layer {layer.layer + 1}: {layer.kept_heads} of {layer.dense_heads} heads, {layer.kept_neurons} of "
        f"{layer.dense_neurons} neurons"
        + ("" if layer.experts is None else f", of {layer.experts.kept} of {layer.experts.dense} experts")
        for layer in layers
    )
    return _svg(figure, f"What stayed. {spoken}")


@_styled
def residuals(layers: Sequence[LayerReport]) -> str | None:
    """Draw each sublayer's relative residual before and after its repair; None if nothing was measured."""
    panels = (("attention", [layer.attention for layer in layers]), ("FFN", [layer.ffn for layer in layers]))
    values = [value for _, own in panels for sublayer in own for value in _measured(sublayer)]
    if not values:
        return None
    low, high = _log_bounds(values)
    # Two panels side by side stay readable on a phone; below them is room for the layer numbers.
    figure = Figure(figsize=(_WIDTH / 72, 150 / 72), dpi=72)
    for column, (name, sublayers) in enumerate(panels):
        axes = figure.add_axes((0.115 + 0.46 * column, 0.14, 0.415, 0.72))
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axes.set_title(name, fontsize=_FONT, color=_INK, loc="left", pad=6)
        for index, sublayer in enumerate(sublayers):
            if len(found := [max(own, low * _AT_ZERO) for own in _measured(sublayer)]) == 2:
                axes.plot([index, index], found, color=_LINE, linewidth=1.5, zorder=1)
                axes.plot([index], [found[0]], "o", markersize=5, markerfacecolor="none", markeredgecolor=_MUTED, zorder=2)
                axes.plot([index], [found[1]], "o", markersize=5, color=_ACCENT if _is_better(sublayer) else _WARN, zorder=3)
        _layer_axis(axes, layers)
        axes.grid(visible=True, which="major", axis="y", linewidth=0.5)
        ticks = _log_ticks(min(filter(None, values), default=1) / 1.5, high)
        zero = [low * _AT_ZERO] if min(values) == 0 else []
        axes.set_yticks([*zero, *ticks], ["0"] * len(zero) + [f"{tick:g}" for tick in ticks], minor=False)
        axes.tick_params(axis="y", which="both", length=0, labelleft=column == 0, labelsize=_FONT - 1.5)
        axes.minorticks_off()
    return _svg(figure, "Relative residual of each sublayer on held-out tokens: hollow before its repair, filled after")


def some_no_better(layers: Sequence[LayerReport]) -> bool:
    """Return whether `residuals` draws some sublayer as no better than before its repair."""
    drawn = [own for layer in layers for own in (layer.attention, layer.ffn) if _measured(own)]
    return not all(map(_is_better, drawn))


def _is_better(sublayer: SublayerReport) -> bool:
    """Whether there was nothing to repair in a measured sublayer, or its repair has made it better."""
    before, after = _measured(sublayer)
    return after < before or after == 0 or sublayer.status == "skipped"


@_styled
def iterations(layers: Sequence[LayerReport]) -> str | None:
    """Draw the solver's iterations for each sublayer; None if all solves were direct."""
    panels = (("attention", [layer.attention for layer in layers]), ("FFN", [layer.ffn for layer in layers]))
    most = max(sublayer.iterations for _, own in panels for sublayer in own)
    if most == 0:
        return None
    figure = Figure(figsize=(_WIDTH / 72, 120 / 72), dpi=72)
    for column, (name, sublayers) in enumerate(panels):
        axes = figure.add_axes((0.09 + 0.47 * column, 0.17, 0.43, 0.66))
        axes.bar(range(len(sublayers)), [sublayer.iterations for sublayer in sublayers], color=_ACCENT, width=0.6)
        axes.set_ylim(0, most * 1.1)
        axes.set_title(name, fontsize=_FONT, color=_INK, loc="left", pad=6)
        axes.grid(visible=True, axis="y", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0, labelleft=column == 0, labelsize=_FONT - 1.5)
        _layer_axis(axes, layers)
    return _svg(figure, f"Solver iterations of each sublayer, {most} at most")


@_styled
def stages(seconds: SecondsReport) -> str:
    """Draw the seconds of each stage; stages of less than 0.5 % of the time are left out."""
    shown = [(name, taken) for name, taken in seconds.by_stage.items() if taken >= 0.005 * seconds.total]
    figure, axes = _figure(19 * len(shown) + 2)
    longest = max((taken for _, taken in shown), default=1.0)
    _bare(axes, (0, _WIDTH), (len(shown), 0))
    for row, (name, taken) in enumerate(shown):
        width = max(1.5, 190 * taken / longest)
        axes.add_patch(Rectangle((84, row + 0.18), width, 0.64, color=_ACCENT, linewidth=0))
        axes.text(0, row + 0.5, name, va="center")
        axes.text(90 + width, row + 0.5, f"{taken:.1f} s", va="center", color=_MUTED)
    return _svg(figure, "Seconds by stage: " + ", ".join(f"{name} {taken:.1f}" for name, taken in shown))


@_styled
def frontier(points: Sequence[Point], quality: QualityReport) -> str:
    """Draw quality against the share of the MACs that is kept, with the dense model as reference; better is always up."""
    dense, metric = quality.dense, quality.label
    ordered = sorted(points, key=lambda point: point.macs_kept)
    figure = Figure(figsize=(_WIDTH / 72, 190 / 72), dpi=72)
    axes = figure.add_axes((0.14, 0.17, 0.83, 0.77))
    axes.axhline(dense, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.0, dense, " dense", va="bottom", color=_MUTED, fontsize=_FONT - 1)
    axes.plot([point.macs_kept for point in ordered], [point.quality for point in ordered], "-o", color=_ACCENT, markersize=5)
    for point in ordered:
        axes.annotate(
            f"{point.quality:.3f}",
            (point.macs_kept, point.quality),
            textcoords="offset points",
            xytext=(7, -11),
            fontsize=_FONT - 1,
        )
    low, high = min([dense, *(p.quality for p in points)]), max([dense, *(p.quality for p in points)])
    room = max(high - low, 0.005)
    axes.set_ylim(low - 0.35 * room, high + 0.2 * room)
    if quality.lower_is_better:
        axes.set_ylim(high + 0.35 * room, low - 0.2 * room)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:.0%}")
    axes.set_xlabel("MACs kept", fontsize=_FONT - 1)
    axes.set_ylabel(metric, fontsize=_FONT - 1)
    axes.tick_params(length=0, labelsize=_FONT - 1.5)
    axes.grid(visible=True, axis="y", linewidth=0.5)
    return _svg(figure, "Frontier: " + "; ".join(f"{p.macs_kept:.0%} of the MACs, {metric} {p.quality:.4f}" for p in ordered))


@_styled
def training_losses(points: Sequence[TrainingPoint]) -> str:
    """Draw the training loss and the held-out loss over the steps."""
    figure, axes = _curve_axes(170)
    trained = [point for point in points if point.step and point.loss > 0]
    judged = [(point.step, point.held_out) for point in points if point.held_out is not None]
    axes.plot([point.step for point in trained], [point.loss for point in trained], color=_DENSE)
    axes.plot([step for step, _ in judged], [loss for _, loss in judged], "-o", color=_ACCENT, markersize=4)
    axes.set_ylim(bottom=0)
    _phase_lines(axes, points)
    said = ", ".join(f"step {step} {loss:.4g}" for step, loss in judged)
    return _svg(figure, f"Loss over the steps of training; on held-out rows: {said}")


@_styled
def training_measures(points: Sequence[TrainingPoint]) -> str | None:
    """Draw the method's own figures over the steps, four at most, on a logarithmic scale; None if there are none."""
    names = list(dict.fromkeys(name for point in points for name, value in point.measures.items() if value > 0))[:4]
    if not names:
        return None
    figure, axes = _curve_axes(170)
    axes.set_yscale("log")
    for name, style, color in zip(names, ("-", "--", ":", "-."), (_ACCENT, _INK, _MUTED, _WARN), strict=False):
        own = [(point.step, value) for point in points if (value := point.measures.get(name, 0.0)) > 0]
        axes.plot([step for step, _ in own], [value for _, value in own], style, color=color, label=name.replace("_", " "))
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=_FONT - 1.5, loc="best")
    return _svg(figure, f"Over the steps of training: {', '.join(name.replace('_', ' ') for name in names)}")


def _curve_axes(height: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes((0.13, 0.18, 0.84, 0.76))
    axes.set_xlabel("step", fontsize=_FONT - 1)
    axes.tick_params(length=0, labelsize=_FONT - 1.5)
    axes.grid(visible=True, axis="y", linewidth=0.5)
    return figure, axes


def _phase_lines(axes: Axes, points: Sequence[TrainingPoint]) -> None:
    """Mark the step at which each phase begins."""
    for before, point in pairwise(points):
        if point.phase != before.phase:
            axes.axvline(before.step, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.text(
                before.step,
                1,
                f" {point.phase}",
                va="top",
                color=_MUTED,
                fontsize=_FONT - 1,
                transform=axes.get_xaxis_transform(),
            )


@_styled
def norms(histogram: NormHistogram) -> str:
    """Draw the histogram of the segments' norms, relative to the mean of their matrix, on a logarithmic scale."""
    figure = Figure(figsize=(_WIDTH / 72, 120 / 72), dpi=72)
    axes = figure.add_axes((0.14, 0.2, 0.83, 0.7))
    axes.set_xscale("log")
    lefts, widths = histogram.edges[:-1], [b - a for a, b in zip(histogram.edges, histogram.edges[1:], strict=False)]
    axes.bar(lefts, histogram.counts, widths, align="edge", color=_ACCENT, edgecolor=_LINE, linewidth=0.5)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.minorticks_off()
    axes.tick_params(length=0, labelsize=_FONT - 1.5)
    axes.grid(visible=True, axis="y", linewidth=0.5)
    axes.set_axisbelow(True)
    return _svg(figure, f"Norms of {sum(histogram.counts)} segments that stayed; {histogram.zero} are zero")


@_styled
def ledger(rows: Sequence[LedgerRow]) -> str | None:
    """Draw how much worse each capability is, in units of its limit, with its interval; None if nothing has one."""
    drawn = [(row, found) for row in rows if (found := worse_by_limits(row)) is not None]
    if not drawn:
        return None
    figure, axes = _figure(19 * len(drawn) + 24)
    least, most = -1.0, 3.0
    left, right = 178.0, _WIDTH - 6.0
    _bare(axes, (0, _WIDTH), (len(drawn) + 1.0, 0))

    def at(value: float) -> float:
        return left + (right - left) * (min(most, max(least, value)) - least) / (most - least)

    for value, said in ((0.0, "as dense"), (1.0, "limit")):
        axes.plot([at(value)] * 2, [0, len(drawn)], color=_LINE, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(at(value), len(drawn) + 0.55, said, ha="center", va="center", color=_MUTED, fontsize=_FONT - 1.5)
    for place, (row, (value, low, high)) in enumerate(drawn):
        color = _MUTED if row.verdict is None else {"kept": _ACCENT, "lost": _WARN, "unclear": _MUTED}[row.verdict]
        axes.text(0, place + 0.5, short_name(row)[:34], va="center", fontsize=_FONT - 1.5)
        axes.plot([at(low), at(high)], [place + 0.5] * 2, color=color, linewidth=1.5)
        mark = ">" if value > most else "<" if value < least else "o"
        axes.plot([at(value)], [place + 0.5], mark, markersize=5, color=color)
    told = "; ".join(f"{own.subject} {own.verdict}" for own, _ in drawn if own.verdict is not None)
    return _svg(figure, f"Worse than the dense model, in limits: {told}")


def _measured(sublayer: SublayerReport) -> list[float]:
    before, after = sublayer.residual_before, sublayer.residual_after
    return [] if before is None or after is None else [before, after]


def _log_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a log axis for values of which some may be zero: these get a place of their own below the others."""
    above = [value for value in values if value > 0] or [1.0]
    least = min(above) / 1.5
    return (least / _AT_ZERO**2 if min(values) == 0 else least), max(above) * 1.5


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round values between two bounds: 1, 2 and 5 of each decade; over more decades 1 and 3, or only 1."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(decades) > 4 else (1, 3) if len(decades) > 2 else (1, 2, 5)
    return [tick for decade in decades for step in steps if low <= (tick := step * 10.0**decade) <= high]


def _layer_axis(axes: Axes, layers: Sequence[LayerReport]) -> None:
    every = max(1, math.ceil(len(layers) / 8))
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_xticks(range(0, len(layers), every), [str(layer.layer + 1) for layer in layers[::every]])
    axes.tick_params(axis="x", length=0, labelsize=_FONT - 1.5)


def _figure(height: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
    return figure, figure.add_axes((0, 0, 1, 1))


def _bare(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    axes.set_xlim(*x)
    axes.set_ylim(*y)
    axes.axis("off")


def _svg(figure: Figure, description: str) -> str:
    """Render a figure as SVG for inlining: no document head, no fixed size, the page's colours and font."""
    written = io.StringIO()
    FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    # Styles of an inlined document would apply to the rest of the page, and its ids would clash with others.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    spoken = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    text = re.sub(r'<svg .*?viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{spoken}">', text, count=1)
    text = re.sub(r" font-family: [^;\"]+;", "", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, f"var(--{variable})")
    return text
