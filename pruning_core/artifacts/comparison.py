"""Comparisons of a fresh process's findings on a bundle with the worker's own.

They fail closed: a value that is missing, of another shape or not finite is a problem with a reason, never a small difference.
Problems are phrases that follow a subject and its verb: "a fresh process gets ...".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

# The least scale of outputs: a model that answers zeros has no scale of its own.
_SMALLEST = 1e-12
# Frequencies of positions are powers, which devices may round differently.
_ROUNDING = 1e-5

FACTS = {
    "labels": "classes are not named as the source's (id2label, problem_type or task_specific_params)",
    "rope": "positions turn by other frequencies than the source's (rope_theta, rope_scaling)",
    "generation": "settings of generation are not the source's",
    "image processor": "image processor is not set as the source's",
    "tokens": "tokenizer makes other tokens than the source's",
    "special tokens": "tokenizer has other special tokens than the source's",
    "tokenizer settings": "tokenizer pads or cuts texts otherwise than the source's",
    "chat template": "chat template is not the source's",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison of two lists of outputs.

    Attributes:
        difference: Largest difference, relative to the largest output of its batch; None where they cannot be compared.
        problem: A phrase on what is wrong; None where the difference is within the tolerance.
    """

    difference: float | None
    problem: str | None


def compare_outputs(ours: Sequence[Tensor], theirs: Sequence[list[list[float]]], tolerance: float) -> Compared:
    """Compare the worker's outputs with the fresh process's on the same inputs.

    Args:
        ours: The worker's outputs, one tensor a batch, (rows, values).
        theirs: The fresh process's outputs, one nested list a batch.
        tolerance: Largest relative difference that is accepted.
    """
    if not ours or len(theirs) != len(ours):
        return Compared(None, f"outputs of {len(theirs)} of {len(ours)} batches")
    worst = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        shape = _shape(other)
        if shape != tuple(mine.shape) or not mine.numel():
            return Compared(None, f"outputs of shape {shape or 'unknown'} where the worker got {tuple(mine.shape)}")
        found = torch.tensor(other, dtype=torch.float64)
        if not bool(found.isfinite().all()):
            return Compared(None, "outputs that are not finite numbers")
        if not bool(mine.isfinite().all()):
            return Compared(None, "outputs that have nothing to be compared with: the worker's are not finite numbers")
        scale = mine.double().abs().max().clamp(min=_SMALLEST)
        worst = max(worst, float((mine.double() - found).abs().max() / scale))
    if not worst <= tolerance:
        return Compared(worst, f"outputs that differ by {worst:.1e} of the largest, more than {tolerance:g}")
    return Compared(worst, None)


def compare_facts(ours: Mapping[str, object], theirs: Mapping[str, object]) -> tuple[tuple[str, ...], str | None]:
    """Compare what decides results beside the weights: of the source, and of the checkpoint in the fresh process.

    Args:
        ours: The facts of the source, by name.
        theirs: The facts of the checkpoint, by name.

    Returns:
        The names of the facts that are the same, and a sentence on the first that is not.
    """
    unlike = [name for name in ours if name not in theirs or not _alike(ours[name], theirs[name])]
    problem: str | None = None
    if unlike:
        missing = unlike[0] not in theirs
        problem = (
            f"a fresh process did not look at its {unlike[0]}" if missing else f"in a fresh process its {FACTS[unlike[0]]}"
        )
    return tuple(name for name in ours if name not in unlike), problem


def _alike(mine: object, other: object) -> bool:
    """Return whether two values of JSON are the same, but for the rounding of numbers that are no integers."""
    if isinstance(mine, list) and isinstance(other, list):
        first, second = cast("list[object]", mine), cast("list[object]", other)
        return len(first) == len(second) and all(map(_alike, first, second))
    if isinstance(mine, float) and isinstance(other, float):
        return math.isclose(mine, other, rel_tol=_ROUNDING)
    return mine == other


def problem_of_times(milliseconds: Sequence[float], repeats: int) -> str | None:
    """Check measured times, which must be complete, finite and above zero; return a phrase on what is wrong, if anything."""
    if repeats < 1 or len(milliseconds) != repeats:
        return f"{len(milliseconds)} of {repeats} times"
    if not all(math.isfinite(own) and own > 0 for own in milliseconds):
        return "times that are not finite and above zero"
    return None


def problem_of_counts(*, stored: int, size: int, loaded: int, expected: int, expected_size: int) -> str | None:
    """Check the counts of a checkpoint; return a phrase on what is wrong, if anything.

    Args:
        stored: Values that the fresh process counted in the files.
        size: Bytes that the fresh process counted.
        loaded: Parameters of the loaded model.
        expected: Values that the worker counted.
        expected_size: Bytes that the worker counted.
    """
    if stored != expected or size != expected_size:
        return f"{stored} values in {size} bytes of weights, where the worker counted {expected} in {expected_size}"
    if not 0 < loaded <= stored:
        return f"a model of {loaded} parameters from {stored} stored values"
    return None


def _shape(nested: list[list[float]]) -> tuple[int, int] | None:
    """Return the shape of rows of numbers; None where rows differ in length."""
    widths = {len(row) for row in nested}
    return (len(nested), widths.pop()) if len(widths) == 1 else None
