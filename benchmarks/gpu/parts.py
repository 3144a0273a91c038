"""The parts of a run, in the order of what is worth most, and what each is given. Torch is imported by the parts alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

Figure = float | int | str
Emit = Callable[..., None]
"""Called with what a row is about, and its figures by name; each row is written at once."""


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        device: ``cuda``, or ``cpu`` in a dry run.
        dry: Whether models are tiny and repeats few: the figures then mean nothing.
        folder: An empty folder for files.
    """

    device: str
    dry: bool
    folder: Path

    @property
    def repeats(self) -> int:
        """How often something is timed."""
        return 2 if self.dry else 20


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: Its name.
        about: What its rows are, for the table.
        budget_s: Seconds after which it is ended; the rows that it has written by then count.
        entry: The function that does it, as ``module:function``.
    """

    name: str
    about: str
    budget_s: int
    entry: str

    def run(self, setting: Setting, emit: Emit) -> None:
        """Do it in this process."""
        module, _, name = self.entry.partition(":")
        getattr(import_module(module), name)(setting, emit)


_HERE = "benchmarks.gpu"
# 7 minutes and 40 seconds in all. A part that ends early leaves its time to nobody: the whole must end in 8 minutes.
PARTS = (
    Part("tests", "the tests that have a branch for GPUs", 75, f"{_HERE}.device_tests:measure"),
    Part("two-four", "2:4 products by to_sparse_semi_structured", 40, f"{_HERE}.two_four:measure"),
    Part("widths", "speed-ups of FFN widths, aligned or not", 60, f"{_HERE}.widths:measure"),
    Part("latency", "half of the units of a BERT-base, by type", 35, f"{_HERE}.latency:measure"),
    Part("floor", "seconds beside one forward and one backward pass", 60, f"{_HERE}.pruning_time:measure"),
    Part("llama-1b", "a random Llama of 1.2 G parameters pruned, resident and paged", 80, f"{_HERE}.llamas:measure_1b"),
    Part("llama-7b", "a random Llama of 6.7 G parameters pruned", 110, f"{_HERE}.llamas:measure_7b"),
)
