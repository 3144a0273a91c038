"""Conditions on a report, for ``--fail-if``: ``drop>0.01``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pruning_core.report.report import Report
from pruning_core.spec.nearest import did_you_mean


class NotJudged(ValueError):
    """A report lacks the figure of a condition."""


def _worse(report: Report, end: int) -> float:
    worse = report.quality.worse
    if worse is None:
        why = report.quality.no_interval or "it was made by an earlier version"
        raise NotJudged(f"the report has no interval of the difference: {why}")
    return worse[end]


FIGURES: Mapping[str, tuple[str, Callable[[Report], float]]] = {
    "drop": ("quality of the dense model minus that of the pruned model", lambda r: r.quality.dense - r.quality.pruned),
    "surely_worse": (
        "how much worse than the dense model it is at least: the lower end of the 95 % interval",
        lambda r: _worse(r, 0),
    ),
    "may_be_worse": (
        "how much worse than the dense model it is at most: the upper end of the 95 % interval",
        lambda r: _worse(r, 1),
    ),
    "quality": ("quality of the pruned model", lambda r: r.quality.pruned),
    "sparsity": ("fraction of the prunable weights that is removed", lambda r: r.sparsity.achieved),
    "macs": ("fraction of the MACs that is kept", lambda r: r.macs.pruned / r.macs.dense),
    "params": ("fraction of the parameters that is kept", lambda r: r.parameters.pruned / r.parameters.dense),
    "bytes": ("size of the weights in bytes", lambda r: float(r.bytes.pruned)),
    "latency": ("median milliseconds of the pruned model", lambda r: r.latency_ms.pruned),
    "speedup": ("how many times faster", lambda r: r.latency_ms.speedup),
    "seconds": ("how long the job took", lambda r: r.seconds.total),
}

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FORM = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d*)?(?:[eE]-?\d+)?)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Condition:
    """One figure of a report against a bound."""

    figure: str
    comparison: str
    bound: float

    def holds(self, report: Report) -> bool:
        """Return whether the condition holds of a report.

        Raises:
            NotJudged: The report lacks the figure.
        """
        return _OPERATORS[self.comparison](self.value(report), self.bound)

    def value(self, report: Report) -> float:
        """Return the figure's value in a report."""
        return FIGURES[self.figure][1](report)

    def __str__(self) -> str:
        return f"{self.figure}{self.comparison}{self.bound:g}"


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ValueError: The text is not a condition. The message shows what one looks like.
    """
    match = _FORM.fullmatch(text)
    if match is None or match[1] not in FIGURES:
        word = re.match(r"\s*(\w*)", text)
        meant = did_you_mean(word[1], FIGURES) if word is not None and word[1] not in FIGURES else ""
        raise ValueError(
            f"{text!r} is no condition: give one such as 'drop>0.01', of {', '.join(FIGURES)} and > >= < <={meant}"
        )
    return Condition(match[1], match[2], float(match[3]))
