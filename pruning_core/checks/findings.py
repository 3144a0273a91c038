"""What a check found out about a request's data, and what it did not look at. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.prune import PruneSpec


class Findings(Frozen):
    """What is known of a job's data before any work: what was guessed, and how far it was read."""

    rows: dict[str, int | None] = Field(
        default_factory=dict[str, int | None],
        description="Number of rows by split; null where they were not counted to the end.",
    )
    classes: dict[str, int] = Field(
        default_factory=dict[str, int], description="Training rows by the model's class, of those that were read; 32 at most."
    )
    notes: tuple[str, ...] = Field(default=(), description="What was guessed, decided or left out, and what looks odd.")
    not_looked_at: tuple[str, ...] = Field(
        default=(), description="What only the job will read: it may still refuse what it finds there."
    )

    def and_of(self, further: Findings) -> Findings:
        """Return these findings with the sentences about further data."""
        return self.but(notes=(*self.notes, *further.notes), not_looked_at=(*self.not_looked_at, *further.not_looked_at))


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that was not refused: with the columns that were guessed, and what was found."""

    spec: PruneSpec
    findings: Findings
