"""Comparisons of a fresh process's findings on a bundle with the worker's own.

They fail closed: a value that is missing, of another shape or not finite is a problem with a reason, never a small difference.
Problems are phrases that follow a subject and its verb: "a fresh process gets ...".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# The least scale of outputs: a model that answers zeros has no scale of its own.
_SMALLEST = 1e-12


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
