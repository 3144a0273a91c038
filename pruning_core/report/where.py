"""Reports of where quality was lost: by class, by length, by calibration, and the rows that changed most. Torch-free.

Examples hold rows of the data. They are part of the report, and of no card, event or metric.
"""

from __future__ import annotations

from pydantic import Field

from pruning_core.spec.frozen import Frozen


class ClassReport(Frozen):
    """One class: precision is null where a model never answers it, recall where no row has it."""

    name: str
    support: int = Field(description="Rows that have it.")
    dense_precision: float | None
    dense_recall: float | None
    pruned_precision: float | None
    pruned_recall: float | None


class CalibrationErrorReport(Frozen):
    """Expected calibration error (Guo et al. 2017): mean distance of confidence and accuracy over bins of equal width."""

    dense: float
    pruned: float
    bins: int


class SliceReport(Frozen):
    """The task's metric on a part of the rows; null where it is undefined there."""

    name: str
    rows: int
    dense: float | None
    pruned: float | None
    low: float | None = Field(default=None, description="95 % interval of pruned minus dense; null where rows are too few.")
    high: float | None = None
    column: str | None = Field(default=None, description="The column that the name is a value of; null: it is a length.")
    no_interval: str | None = Field(default=None, description="Why there is no interval.")


class ExampleReport(Frozen):
    """A row whose answer changed. Texts are cut."""

    row: int = Field(description="Its place among the rows that were judged, from 0.")
    texts: tuple[str, ...]
    wanted: str
    dense: str
    pruned: str


class WhereReport(Frozen):
    """Where quality was lost."""

    classes: tuple[ClassReport, ...] = Field(default=(), description="Those that lost the most recall first.")
    classes_left_out: int = Field(default=0, description="Number of further classes, which lost less.")
    calibration: CalibrationErrorReport | None = None
    slices: tuple[SliceReport, ...] = Field(
        default=(),
        description="By quarters of the rows' lengths; then by the columns of evaluation.slices, of each the worst first, and "
        "last those that are too small for an interval.",
    )
    examples: tuple[ExampleReport, ...] = Field(default=(), description="Rows whose answers changed most: evaluation.examples.")
