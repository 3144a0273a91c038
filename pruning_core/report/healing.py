"""Report of a healing: what it gained, on held-out samples of each kind, in which time. Torch-free."""

from __future__ import annotations

from pydantic import Field

from pruning_core.report.training import TrainingReport
from pruning_core.spec.frozen import Frozen


def taken_away(start: float, best: float) -> float:
    """Return the share of a divergence that was taken away; 0 where there was none."""
    return 1 - best / start if start > 0 else 0.0


class HeldOutReport(Frozen):
    """Held-out samples of one kind: their mean divergence from the dense model's outputs, before and as delivered."""

    kind: str = Field(description="in domain: of the user's data; off domain: written by the dense model itself.")
    samples: int
    start: float = Field(description="Before the first step.")
    best: float = Field(description="Of the weights that were kept.")

    @property
    def gained(self) -> float:
        """Share of the divergence that healing took away."""
        return taken_away(self.start, self.best)


class HealingReport(TrainingReport):
    """A healing. The losses are divergences from the dense model's outputs; of a decoder's, in nats a token.

    The weights of ``best_step`` were kept: 0 is the start, where nothing was surely better on the held-out samples.
    """

    minutes: float | None = Field(description="The budget; null where the number of steps was given.")
    seconds: float = Field(description="Seconds of all of it in this attempt, writing texts and judging included.")
    written: int = Field(default=0, description="Number of texts that the dense model wrote for it.")
    held_out: tuple[HeldOutReport, ...]
    gain_per_minute: float = Field(
        description="Share of the divergence that was taken away, a minute of all steps and judgements."
    )

    @property
    def gained(self) -> float:
        """Share of the divergence that healing took away."""
        return taken_away(self.held_out_start, self.held_out_best)

    @property
    def kept(self) -> bool:
        """Whether anything of it was kept."""
        return self.best_step > 0

    @property
    def done(self) -> str:
        """What was done to the model, as the end of a sentence on how it was pruned."""
        if not self.kept:
            return "without retraining"
        return f"then healed for {self.best_step} steps of distillation from the base model"

    @property
    def words(self) -> str:
        """What happened, in a sentence or two."""
        if not self.kept:
            why = f" ({self.reason})" if self.reason else ""
            return (
                "healing found nothing that is surely better on held-out samples than the repaired model, which was kept as it "
                f"was{why}"
            )
        kinds = ", ".join(f"{own.kind} {own.start:.4g} → {own.best:.4g} ({own.samples} samples)" for own in self.held_out)
        early = f". It ended early: {self.reason}" if self.reason else ""
        return (
            f"{self.steps} steps of {self.batch_size} samples in {self.seconds:.0f} s; divergence from the dense model on "
            f"held-out samples: {kinds}; {100 * self.gain_per_minute:.2g} % of it a minute; best at step "
            f"{self.best_step}{early}"
        )
