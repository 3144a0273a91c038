"""Conditions on a report, for ``--fail-if``: ``drop>0.01``, or ``reviews.drop>0.01`` of a further evaluation set."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pruning_core.report.also import set_named
from pruning_core.report.quality import QualityReport
from pruning_core.report.report import Report
from pruning_core.spec.nearest import did_you_mean


class NotJudged(ValueError):
    """A report lacks the figure of a condition."""


def _worse(quality: QualityReport, end: int) -> float:
    worse = quality.worse
    if worse is None:
        why = quality.no_interval or "it was made by an earlier version"
        raise NotJudged(f"the report has no interval of the difference: {why}")
    return worse[end]


def _quality(report: Report, of: str | None) -> QualityReport:
    """Return the quality of the task, or of the further evaluation set of a name."""
    if of is None:
        return report.quality
    found = set_named(report.also, of)
    if found is None:
        raise NotJudged(f"the report has no evaluation set {of}; {_there(of, [own.name for own in report.also])}")
    if found.quality is None:
        raise NotJudged(f"evaluation set {of} was not judged: {found.reason}")
    return found.quality


def _there(of: str, names: Sequence[str]) -> str:
    """Say which evaluation sets there are instead of one."""
    return f"it has {', '.join(names)}{did_you_mean(of, names)}" if names else "it has none: evaluation.also names them"


# Figures of a quality: of the task's, or, after a name and a dot, of a further evaluation set's.
OF_QUALITY: Mapping[str, tuple[str, Callable[[QualityReport], float]]] = {
    "drop": (
        "how much worse than the dense model it was measured to be, whichever direction of the metric is better",
        lambda q: q.pruned - q.dense if q.lower_is_better else q.dense - q.pruned,
    ),
    "surely_worse": (
        "how much worse than the dense model it is at least: the lower end of the 95 % interval",
        lambda q: _worse(q, 0),
    ),
    "may_be_worse": (
        "how much worse than the dense model it is at most: the upper end of the 95 % interval",
        lambda q: _worse(q, 1),
    ),
    "quality": ("quality of the pruned model", lambda q: q.pruned),
}
_OF_REPORT: Mapping[str, tuple[str, Callable[[Report], float]]] = {
    "sparsity": ("fraction of the prunable weights that is removed", lambda r: r.sparsity.achieved),
    "macs": ("fraction of the MACs that is kept", lambda r: r.macs.pruned / r.macs.dense),
    "params": ("fraction of the parameters that is kept", lambda r: r.parameters.pruned / r.parameters.dense),
    "bytes": ("size of the weights in bytes", lambda r: float(r.bytes.pruned)),
    "latency": ("median milliseconds of the pruned model", lambda r: r.latency_ms.pruned),
    "speedup": ("how many times faster", lambda r: r.latency_ms.speedup),
    "seconds": ("how long the job took", lambda r: r.seconds.total),
}
FIGURES: Mapping[str, str] = {name: said for name, (said, _) in (*OF_QUALITY.items(), *_OF_REPORT.items())}

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FORM = re.compile(r"\s*(?:([A-Za-z0-9][A-Za-z0-9_\-]*)\.)?(\w+)\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d*)?(?:[eE]-?\d+)?)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Condition:
    """One figure of a report against a bound."""

    figure: str
    comparison: str
    bound: float
    of: str | None = None

    def holds(self, report: Report) -> bool:
        """Return whether the condition holds of a report.

        Raises:
            NotJudged: The report lacks the figure.
        """
        return _OPERATORS[self.comparison](self.value(report), self.bound)

    def value(self, report: Report) -> float:
        """Return the figure's value in a report.

        Raises:
            NotJudged: The report lacks the figure.
        """
        if self.figure in OF_QUALITY:
            return OF_QUALITY[self.figure][1](_quality(report, self.of))
        return _OF_REPORT[self.figure][1](report)

    @property
    def named(self) -> str:
        """The figure, with the evaluation set that it is of."""
        return self.figure if self.of is None else f"{self.of}.{self.figure}"

    def __str__(self) -> str:
        return f"{self.named}{self.comparison}{self.bound:g}"


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ValueError: The text is not a condition. The message shows what one looks like.
    """
    match = _FORM.fullmatch(text)
    if match is None or match[2] not in FIGURES:
        word = re.match(r"\s*(?:[A-Za-z0-9][A-Za-z0-9_\-]*\.)?(\w*)", text)
        meant = did_you_mean(word[1], FIGURES) if word is not None and word[1] not in FIGURES else ""
        raise ValueError(
            f"{text!r} is no condition: give one such as 'drop>0.01', of {', '.join(FIGURES)} and > >= < <={meant}"
        )
    if match[1] is not None and match[2] not in OF_QUALITY:
        some = ", ".join(OF_QUALITY)
        raise ValueError(f"{text!r} is no condition: of an evaluation set there are {some}, as in '{match[1]}.drop>0.01'")
    return Condition(match[2], match[3], float(match[4]), match[1])


def check_sets(conditions: Iterable[Condition], names: Sequence[str]) -> None:
    """Refuse conditions on evaluation sets that a request does not have: its report could not be judged by them.

    Args:
        conditions: The conditions.
        names: Names of the request's further evaluation sets.

    Raises:
        ValueError: There is such a condition.
    """
    for own in conditions:
        if own.of is not None and own.of not in names:
            raise ValueError(f"{own}: the request has no evaluation set {own.of}; {_there(own.of, names)}")
