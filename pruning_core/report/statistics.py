"""What a run found ready of the dense model, gathered by an earlier one, and what it kept for later ones. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen

StatisticsKind = Literal["writing", "scores", "states", "answers"]

KINDS_IN_WORDS: dict[StatisticsKind, str] = {
    "writing": "the texts that the dense model wrote",
    "scores": "the scores of its units",
    "states": "its hidden states on the calibration samples",
    "answers": "its answers on the evaluation rows",
}


class KeptReport(Frozen):
    """One kept piece."""

    kind: StatisticsKind
    reused: bool = Field(description="Whether it was there already; otherwise this run gathered it.")
    seconds: float = Field(description="How long it took to gather, in the run that did.")
    made: str | None = Field(default=None, description="When it was gathered, where it was reused.")
    bytes: int


class StatisticsReport(Frozen):
    """The statistics of the dense model that a run reused or kept. Only where a folder for them was given."""

    pieces: tuple[KeptReport, ...] = ()

    @property
    def words(self) -> str | None:
        """What was reused, and what gathering it took when it was done; None where nothing was."""
        reused = [own for own in self.pieces if own.reused]
        if not reused:
            return None
        seconds = sum(own.seconds for own in reused)
        kinds = {own.kind for own in reused}
        listed = ", ".join(said for kind, said in KINDS_IN_WORDS.items() if kind in kinds)
        return f"taken from an earlier run on the same model and data, where it took {seconds:.1f} s: {listed}"
