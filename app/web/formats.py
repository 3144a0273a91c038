"""Numbers and moments as people read them. What is missing, or is no number, is a dash and never an error."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import assert_never

from pruning_core.report.target import TargetReport
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.sizes import size_text
from pruning_core.spec.targets import TARGET_METRICS

MISSING = "\u2013"
WITHOUT_SUBJECT = ("must ", "is ", "may ")

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_KILO = 1000


def finite(value: float | None) -> float | None:
    """Return a number if it can be drawn, else None."""
    return value if value is not None and math.isfinite(value) else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """Return a share, or None where it means nothing."""
    if finite(part) is None or finite(whole) is None or not whole or part is None:
        return None
    return finite(part / whole)


def decimal(value: float | None, digits: int = 4) -> str:
    """Show a number to some digits."""
    return MISSING if finite(value) is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Show a share."""
    return MISSING if finite(value) is None else f"{value:.{digits}%}"


def times(value: float | None) -> str:
    """Show a factor."""
    return MISSING if finite(value) is None else f"{value:.2f}×"  # noqa: RUF001 - typeset


def count(value: float | None) -> str:
    """Show a count in thousands, millions or billions."""
    for scale, unit in ((_KILO**3, " G"), (_KILO**2, " M"), (_KILO, " k")):
        if value is not None and value >= scale:
            return f"{value / scale:.1f}{unit}"
    return MISSING if finite(value) is None else f"{value:g}"


def size(value: float | None) -> str:
    """Show bytes."""
    for scale, unit in ((_KILO**3, "GB"), (_KILO**2, "MB"), (_KILO, "kB")):
        if value is not None and value >= scale:
            return f"{value / scale:.1f} {unit}"
    return MISSING if finite(value) is None else f"{value:g} B"


def figure(value: float) -> str:
    """Show a bound as people write it."""
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def span(seconds: float | None) -> str:
    """Show how long something takes."""
    if finite(seconds) is None or seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.0f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.0f} days"


def ago(moment: datetime) -> str:
    """Show how long ago something was."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return "just now" if seconds < 5 else f"{span(round(seconds) if seconds >= 10 else seconds).replace('.0', '')} ago"


def until(moment: datetime) -> str:
    """Show how long it is until a moment."""
    return span(max(1, round((moment - datetime.now(UTC)).total_seconds()))).replace(".0", "")


def clock(moment: datetime) -> str:
    """Show a moment, whole: people are in many time zones, and pages without scripting cannot know in which."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def target(spec: PruneSpec) -> str:
    """Show in a few words what was asked for."""
    zeroing = spec.method.zeroing
    by_pattern = zeroing is not None and [own.metric for own in spec.all_targets[:1]] == ["pattern"]
    asked = [f"{zeroing.title} pattern"] if zeroing is not None and by_pattern else _budgets(spec)
    if spec.quality_floor is not None:
        floor = spec.quality_floor
        match floor.kind:
            case "absolute":
                asked.append(f"quality ≥ {floor.value:.4g}")
            case "relative":
                asked.append(f"≥ {floor.value:.4g} of the quality")
            case _:
                assert_never(floor.kind)
    return ", ".join(asked)


def _budgets(spec: PruneSpec) -> list[str]:
    """Format the budgets of one metric together: 70%, 50% of the MACs."""
    by_metric: dict[str, list[str]] = {}
    for one in spec.all_targets:
        by_metric.setdefault(one.metric, []).append(
            size_text(one.requested) if TARGET_METRICS[one.metric].absolute else f"{one.requested * 100:.4g}%"
        )
    return [f"{', '.join(shares)} {TARGET_METRICS[metric].share_of}" for metric, shares in by_metric.items()]


def verdict(asked: TargetReport) -> str:
    """Format what was asked for and what was reached, as a sentence without its end."""
    return asked.verdict


def model_name(reference: str) -> str:
    """Name a model by the last part of its path, a Hub id whole, an upload by the beginning of its id."""
    if reference.startswith("mdl_"):
        return f"upload {reference[4:12]}"
    return reference.rstrip("/").rpartition("/")[2] if reference.startswith(("/", ".", "~")) else reference


def about(name: str, message: str) -> str:
    """Begin a sentence that lacks a subject with the name of what it is about; put the name before any other."""
    return f"{name}{' ' if message.startswith(WITHOUT_SUBJECT) else ': '}{message}"


def words(name: str) -> str:
    """Turn a field's name into words."""
    spaced = re.sub(r" mb$", " (MB)", name.replace("_", " ").strip())
    return spaced[:1].upper() + spaced[1:]
