"""Quality in words, for pages, cards and the command line: how large a difference is, and whether it could be chance.

Torch-free.
"""

from __future__ import annotations

from pruning_core.report.quality import ChangedReport, DifferenceReport, FloorReport, IntervalReport, QualityReport
from pruning_core.spec.metrics import METRICS

# The usual threshold, below which people call a difference more than chance.
_CHANCE = 0.05


def difference_words(quality: QualityReport) -> str:
    """Say how the pruned model differs: by how much, between which bounds, how many answers changed, and if it is chance.

    Returns:
        Such as "0.7 points lower, between 1.6 lower and 0.3 higher (95 %); 22 answers changed, 6 net lost; could be chance
        (p = 0.29)". Empty for reports of earlier versions.
    """
    found = quality.difference
    if found is None:
        return f"no interval: {quality.no_interval}" if quality.no_interval else ""
    parts = [_amount(quality, found)]
    if quality.changed is not None:
        parts.append(_changed(quality.changed))
    parts.append(_chance(found))
    if quality.no_interval:
        parts.append(quality.no_interval)
    return "; ".join(parts)


def precision_words(quality: QualityReport) -> str:
    """Say in which precision quality was measured, for use behind a number of samples; empty for float32."""
    return "" if quality.dtype == "float32" else f", in {quality.dtype}"


def interval_words(interval: IntervalReport | None) -> str:
    """Give the ends of an interval, such as "0.8990 to 0.9360"; empty without one."""
    return "" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def floor_words(floor: FloorReport | None) -> str:
    """Say by what a floor with a confidence is judged, and on which rows a search chose; empty for other floors."""
    if floor is None:
        return ""
    found: list[str] = []
    if floor.confidence is not None:
        end = "upper" if floor.lower_is_better else "lower"
        bound = "there is none" if floor.bound is None else f"{floor.bound:.4f}"
        found.append(f"judged by the {end} end of its {_percent(floor.confidence)} interval, {bound}")
    if floor.selected_on is not None:
        found.append(f"chosen on {floor.selected_on} other rows")
    return "; ".join(found)


def _amount(quality: QualityReport, found: DifferenceReport) -> str:
    scale, unit = (100.0, " points") if METRICS[quality.metric].most == 1 else (1.0, "")
    digits = _digits(scale * max(abs(found.value), abs(found.low), abs(found.high)), plain=scale == 1)

    def sided(value: float) -> str:
        text = f"{scale * abs(value):.{digits}f}"
        return text if float(text) == 0 else f"{text} {'lower' if value < 0 else 'higher'}"

    size = f"{scale * abs(found.value):.{digits}f}"
    first = "no difference" if float(size) == 0 else f"{size}{unit} {'lower' if found.value < 0 else 'higher'}"
    if quality.lower_is_better and float(size):
        first += f" ({'better' if found.value < 0 else 'worse'})"
    if found.low == found.high:
        return f"{first}, interval without width ({_percent(found.confidence)})"
    return f"{first}, between {sided(found.low)} and {sided(found.high)} ({_percent(found.confidence)})"


def _digits(largest: float, *, plain: bool) -> int:
    """Choose the digits behind the point, so that the largest figure has two or three that count."""
    if plain:
        return 4 if largest < 0.1 else 3 if largest < 10 else 1
    return 2 if largest < 0.1 else 1


def _changed(changed: ChangedReport) -> str:
    nouns = {"row": ("answer", "answers")}.get(changed.of, (f"{changed.of}'s answer", f"{changed.of}s' answers"))
    if not changed.answers:
        return f"no {nouns[0]} changed"
    net = changed.gained - changed.lost
    outcome = f"{abs(net):,} net {'gained' if net > 0 else 'lost'}" if net else "as many gained as lost"
    return f"{changed.answers:,} {nouns[changed.answers != 1]} changed, {outcome}"


def _chance(found: DifferenceReport) -> str:
    """Judge by the test. Where the interval would say otherwise, neither is to be leant on."""
    p_value = found.p_value
    written = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}" if p_value < 2 * _CHANCE else f"p = {p_value:.2f}"
    beyond = not found.low <= 0 <= found.high
    if found.low < found.high and beyond != (p_value < _CHANCE):
        return f"at the edge of chance ({written})"
    return f"{'could be' if p_value >= _CHANCE else 'hardly'} chance ({written})"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
