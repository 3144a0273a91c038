"""Rows of a labelled task, split by what they were made of, so that nothing leaks from training to validation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# One in six of the things that rows are made of is held out.
_HELD_OUT_OF = 6


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with its class, and what it was made of: a synset, a source package.

    Attributes:
        unit: What is held out as a whole.
        text: The input.
        label: The class's name.
    """

    unit: str
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Size:
    """The most rows of a class in either split, and the number of classes."""

    train: int = 500
    validation: int = 100
    classes: int = 12


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows as they are written: their columns by name.

    Attributes:
        train: Rows to learn from.
        validation: Rows of other units.
        classes: Names of the classes by their numbers; empty for scores.
    """

    train: list[dict[str, object]]
    validation: list[dict[str, object]]
    classes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write both splits as JSON Lines."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in (("train", self.train), ("validation", self.validation)):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")

    @property
    def digest(self) -> str:
        """Return the sha256 of all rows: equal figures need equal data."""
        return hashlib.sha256(json.dumps([self.train, self.validation, self.classes]).encode()).hexdigest()


def held_out(unit: str) -> bool:
    """Tell whether a unit belongs to the validation split. It depends on its name alone."""
    return _place(unit) % _HELD_OUT_OF == 0


def in_order(units: Iterable[str]) -> list[str]:
    """Return units in an order that has nothing to do with their names, the same at every run."""
    return sorted(units, key=lambda unit: (_place(unit), unit))


def classified(rows: Sequence[Labelled], size: Size) -> Splits:
    """Make splits of the commonest classes, with as many rows of each as there are up to a limit.

    A text that occurs twice is taken once, so that none stands in both splits.

    Raises:
        ValueError: There are fewer than two classes, or a split is empty.
    """
    place = {unit: number for number, unit in enumerate(in_order({row.unit for row in rows}))}
    ordered = sorted(rows, key=lambda row: (place[row.unit], row.label, row.text))
    once = list({row.text.casefold(): row for row in reversed(ordered)}.values())[::-1]
    counted = Counter(row.label for row in once)
    classes = tuple(sorted(sorted(counted, key=lambda name: (-counted[name], name))[: size.classes]))
    if len(classes) < 2:
        raise ValueError(f"a task needs two classes, the rows have {len(classes)}")
    train, validation = (_taken(once, classes, split, most) for split, most in ((False, size.train), (True, size.validation)))
    if not train or not validation:
        raise ValueError(f"a split is empty: {len(train)} rows to learn from, {len(validation)} held out")
    return Splits(train, validation, classes)


def _taken(rows: Sequence[Labelled], classes: Sequence[str], validation: bool, most: int) -> list[dict[str, object]]:
    left, taken = dict.fromkeys(classes, most), list[dict[str, object]]()
    for row in rows:
        if left.get(row.label, 0) and held_out(row.unit) == validation:
            left[row.label] -= 1
            taken.append({"text": row.text, "label": classes.index(row.label)})
    return taken


def _place(unit: str) -> int:
    return int.from_bytes(hashlib.sha256(unit.encode()).digest()[:8], "big")
