"""What a training did, torch-free: curves, phases, and which of the weights on its way were kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen

Ending = Literal["finished", "early", "diverged"]


class TrainingPoint(Frozen):
    """One point of the curves."""

    step: int = Field(description="Steps taken.")
    phase: str
    loss: float = Field(description="Mean of the training loss since the point before; 0 at the start.")
    held_out: float | None = Field(
        default=None, description="The same loss on held-out rows, of the weights as they would be written."
    )
    measures: dict[str, float] = Field(
        default_factory=dict[str, float], description="The method's own: rho, primal and dual residuals, shares of zeros."
    )


class PhaseReport(Frozen):
    """A part of a training."""

    phase: str
    steps: int
    seconds: float


class TrainingReport(Frozen):
    """A training. The weights that were kept are those that did best on the held-out rows, its start included."""

    rows: int = Field(description="Trained on.")
    held_out_rows: int
    batch_size: int
    processes: int
    dtype: str = Field(description="Format of matrix products.")
    planned_steps: int
    steps: int
    epochs: float
    ending: Ending
    reason: str | None = Field(default=None, description="Why it ended before its last step.")
    resumed_from: int | None = Field(default=None, description="Step at which an earlier attempt's checkpoint was taken up.")
    best_step: int = Field(description="Steps taken when the weights that were kept were judged.")
    held_out_start: float
    held_out_best: float
    phases: tuple[PhaseReport, ...]
    points: tuple[TrainingPoint, ...]
