"""Further evaluation sets in words, for pages, cards and the command line. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruning_core.report.also import AlsoReport
from pruning_core.report.quality_words import difference_words


@dataclass(frozen=True, slots=True)
class SetWords:
    """One set as a row of a table.

    Attributes:
        name: Its name.
        measure: The metric, with its direction, and the number of samples.
        dense: The dense model's quality; a dash where it could not be judged.
        pruned: The pruned model's.
        said: How sure the difference is, or why the set could not be judged.
    """

    name: str
    measure: str
    dense: str
    pruned: str
    said: str


def set_words(also: Sequence[AlsoReport]) -> list[SetWords]:
    """Return the further sets as rows of a table."""
    found: list[SetWords] = []
    for own in also:
        quality = own.quality
        if quality is None:
            found.append(SetWords(own.name, f"{own.metric}, {own.samples:,} samples", "-", "-", f"not judged: {own.reason}"))
            continue
        measure, said = f"{quality.label}, {own.samples:,} samples", difference_words(quality)
        found.append(SetWords(own.name, measure, f"{quality.dense:.4f}", f"{quality.pruned:.4f}", said))
    return found
