"""Reports of a training: curves, phases, and which of its weights were kept. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen

Ending = Literal["finished", "early", "diverged"]


class TrainingPoint(Frozen):
    """One point of the training curves."""

    step: int = Field(description="Number of steps taken.")
    phase: str
    loss: float = Field(description="Mean training loss since the previous point; 0 at the start.")
    held_out: float | None = Field(
        default=None, description="Loss on the held-out rows, of the weights as they would be written."
    )
    measures: dict[str, float] = Field(
        default_factory=dict[str, float],
        description="The method's own figures: rho, primal and dual residuals, shares of zeros.",
    )


class PhaseReport(Frozen):
    """One phase of a training."""

    phase: str
    steps: int
    seconds: float


class TrainingReport(Frozen):
    """A training. It keeps the weights with the lowest loss on the held-out rows, those of its start included."""

    rows: int = Field(description="Number of rows that were trained on.")
    held_out_rows: int
    batch_size: int
    processes: int
    dtype: str = Field(description="Format of matrix products.")
    planned_steps: int
    steps: int
    epochs: float
    ending: Ending
    reason: str | None = Field(default=None, description="Why the training ended before its last planned step.")
    resumed_from: int | None = Field(
        default=None, description="Step at which this attempt resumed from the checkpoint of an earlier one."
    )
    best_step: int = Field(description="Step after which the kept weights were judged.")
    held_out_start: float
    held_out_best: float
    phases: tuple[PhaseReport, ...]
    points: tuple[TrainingPoint, ...]

    def followed_by(self, other: TrainingReport) -> TrainingReport:
        """Return the report of this training, which chose weights, and another that went on with them as one."""
        at = self.steps
        return other.but(
            planned_steps=self.planned_steps + other.planned_steps,
            steps=at + other.steps,
            epochs=round(self.epochs + other.epochs, 3),
            ending=self.ending if other.ending == "finished" else other.ending,
            reason=self.reason if other.ending == "finished" else other.reason,
            resumed_from=self.resumed_from if other.resumed_from is None else at + other.resumed_from,
            best_step=at + other.best_step,
            held_out_start=self.held_out_start,
            phases=self.phases + other.phases,
            points=self.points + tuple(point.but(step=at + point.step) for point in other.points),
        )
