"""Comparison of what an engine found with the reference. Fails closed: what can't be compared is a problem with a reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from pruning_core.artifacts.comparison import compare_outputs
from pruning_core.artifacts.engines.messages import EngineFound, EngineSpeeds, Position
from pruning_core.artifacts.engines.reference import Expected, Reference
from pruning_core.report.engines import SpeedReport


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What rounding may do, by the type that an engine computes in.

    Attributes:
        margin: Where the reference's two largest logits are closer than this, either may come first.
        difference: Largest difference of log-probabilities or outputs, relative to the largest.
    """

    margin: float
    difference: float


# Of a type with b bits of mantissa, products are rounded to 2^-b; a network's layers add some up. Quantised files (q8, q4) are
# compared with the weights that they were made of, so their tolerances are those of the quantisation.
TOLERANCES = {
    "float32": Tolerance(0.01, 1e-3),
    "float16": Tolerance(0.1, 2e-2),
    "bfloat16": Tolerance(0.5, 8e-2),
    "q8": Tolerance(0.5, 8e-2),
    "q4": Tolerance(4.0, 0.5),
}
_COARSEST = "q4"


@dataclass(frozen=True, slots=True)
class Judged:
    """The comparison of one engine's findings.

    Attributes:
        problem: A phrase after "it gives"; None where all is well.
        tokens: Positions that were compared.
        decided: Those whose margin exceeds the tolerance's.
        agreement: Share of the decided positions with the reference's most likely token; None where nothing was decided.
        difference: Largest relative difference.
        same: Continuations that are the reference's to the last token.
    """

    problem: str | None
    tokens: int = 0
    decided: int = 0
    agreement: float | None = None
    difference: float | None = None
    same: int = 0


def tolerance_of(dtype: str | None) -> Tolerance:
    """Return the tolerance of a type; of one that isn't known the coarsest."""
    return TOLERANCES.get(dtype or "", TOLERANCES[_COARSEST])


def judge(found: EngineFound, reference: Reference, tolerance: Tolerance) -> Judged:
    """Compare an engine's findings with the reference."""
    if reference.texts:
        return _judge_texts(found, reference, tolerance)
    compared = compare_outputs(reference.outputs, found.outputs or [], tolerance.difference)
    if compared.difference is None:
        return Judged(compared.problem)
    return _with_answers(reference.outputs, found.outputs or [], tolerance, compared.problem, compared.difference)


def _with_answers(
    ours: Sequence[Tensor], theirs: Sequence[list[list[float]]], tolerance: Tolerance, problem: str | None, difference: float
) -> Judged:
    """Compare the largest of a row's outputs, which is the class for models with classes."""
    rows = [(mine, other) for one, two in zip(ours, theirs, strict=True) for mine, other in zip(one.tolist(), two, strict=True)]
    decided = agreeing = 0
    for mine, other in rows:
        largest = sorted(mine)[-2:]
        if len(mine) > 1 and largest[1] - largest[0] > tolerance.margin:
            decided += 1
            agreeing += mine.index(largest[1]) == other.index(max(other))
    return Judged(problem, len(rows), decided, agreeing / decided if decided else None, difference)


def _judge_texts(found: EngineFound, reference: Reference, tolerance: Tolerance) -> Judged:
    if found.texts is None or [len(own) for own in found.texts] != [len(own) for own in reference.texts]:
        return Judged("scores of other texts than it was given")
    pairs = [pair for one, two in zip(reference.texts, found.texts, strict=True) for pair in zip(one, two, strict=True)]
    decided = agreeing = 0
    worst = scale = 0.0
    for expected, position in pairs:
        apart, largest = _distance(expected, position)
        if not math.isfinite(apart):
            return Judged("log-probabilities that are not finite numbers", len(pairs))
        worst, scale = max(worst, apart), max(scale, largest)
        if expected.margin > tolerance.margin:
            decided += 1
            agreeing += position[0][0] == expected.first
    difference = worst / max(scale, 1e-12)
    problem = None
    if agreeing < decided:
        problem = f"another most likely token than transformers at {decided - agreeing} of {decided} positions"
    elif difference > tolerance.difference:
        problem = f"log-probabilities that differ by {difference:.1e} of the largest, more than {tolerance.difference:g}"
    else:
        problem = _unlike(found, reference, tolerance)
    written = zip(reference.written, found.generated or (), strict=False)
    same = sum(list(wanted) == own for (wanted, _), own in written)
    return Judged(problem, len(pairs), decided, agreeing / decided if decided else None, difference, same)


def _distance(expected: Expected, position: Position) -> tuple[float, float]:
    """Return the largest difference of a position, and the largest log-probability. Of a token not listed: the excess."""
    ids, logprobs = position
    if not ids or len(ids) != len(logprobs):
        return math.nan, 0.0
    worst = largest = 0.0
    for token, value in zip(ids, logprobs, strict=True):
        own = expected.logprobs.get(token)
        apart = abs(value - own) if own is not None else max(0.0, value - expected.least)
        if not math.isfinite(apart):
            return math.nan, 0.0
        worst, largest = max(worst, apart), max(largest, abs(value if own is None else own))
    return worst, largest


def _unlike(found: EngineFound, reference: Reference, tolerance: Tolerance) -> str | None:
    """Say where a greedy continuation leaves the reference's though the margin was large enough."""
    if found.generated is None or len(found.generated) != len(reference.written):
        return "no continuations of the prompts"
    for (wanted, margins), written in zip(reference.written, found.generated, strict=True):
        if len(written) != len(wanted):
            return f"{len(written)} tokens where {len(wanted)} were asked for"
        first = next((step for step, pair in enumerate(zip(wanted, written, strict=True)) if pair[0] != pair[1]), None)
        if first is not None and margins[first] > tolerance.margin:
            return f"another text than transformers from token {first + 1} of its continuation on"
    return None


def speed_of(times: Sequence[dict[str, float]], prompt: int, new_tokens: int) -> SpeedReport | None:
    """Return the median speed of the turns; None without any."""
    if not times:
        return None
    if "pass_s" in times[0]:
        return SpeedReport(pass_ms=1e3 * median(own["pass_s"] for own in times), pass_spread=_spread(times, "pass_s"))
    return SpeedReport(
        prefill_spread=_spread(times, "prefill_s"),
        decode_spread=_spread(times, "decode_s"),
        prefill_tokens_s=prompt / median(own["prefill_s"] for own in times),
        decode_tokens_s=new_tokens / median(own["decode_s"] for own in times),
    )


def _spread(times: Sequence[dict[str, float]], name: str) -> float | None:
    own = [turn[name] for turn in times]
    return (max(own) - min(own)) / median(own) if len(own) > 1 else None


def speeds_of(speeds: EngineSpeeds | None, prompt: int, new_tokens: int) -> tuple[SpeedReport | None, SpeedReport | None]:
    """Return the speeds of the dense and the pruned model."""
    if speeds is None:
        return None, None
    return speed_of(speeds.dense, prompt, new_tokens), speed_of(speeds.pruned, prompt, new_tokens)
