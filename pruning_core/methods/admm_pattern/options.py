"""Options of ``admm-pattern``. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.grammar import BlockPattern, parse_pattern
from pruning_core.spec.refit import Damping, Iterations, RefitSteps, refit_steps
from pruning_core.spec.training import PatternTraining, Tier


def _pattern(text: str) -> str:
    parse_pattern(text)
    return text


PatternText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=32),
    AfterValidator(_pattern),
    Field(description="N:M, PxQ:K (PxQ keeps half) or unstructured, which takes a sparsity target."),
]


Selection = Literal["admm", "sparsegpt", "wanda", "magnitude"]


class AdmmPattern(Frozen):
    """N:M, pattern and unstructured sparsity of every linear of the blocks; shapes stay (ADMM on Grams, Wang 2024, ALPS 2024).

    What is kept is chosen and refitted on calibration data, without labels and without training; tier ``trained`` goes on from
    there with the task's loss. ``recovery.kind`` none leaves the chosen weights as the selection gives them; other settings of
    recovery but ``holdout`` are those of methods that remove units.
    """

    name: Literal["admm-pattern"] = "admm-pattern"
    pattern: PatternText = "2:4"
    tier: Tier = Field(
        default="one-shot",
        description="one-shot: no labels, no training; trained: that, and then training on the task under the pattern.",
    )
    selection: Selection = Field(
        default="admm", description="What chooses the weights: admm, or one of the baselines that it is measured against."
    )
    pool: int | None = Field(
        default=32,
        ge=2,
        le=256,
        description="Arrangements that blocks of several outputs may choose from, mined from the weights; null: any.",
    )
    iterations: Iterations = 12
    refit_steps: RefitSteps = None
    damping: Damping = 0.01
    training: PatternTraining = Field(default=PatternTraining(), description="Options of tier trained.")

    @property
    def block(self) -> BlockPattern | None:
        """The pattern, read; None for unstructured."""
        return parse_pattern(self.pattern)

    @property
    def obs_group(self) -> int | None:
        """Inputs that the optimal brain surgeon prunes at a time; its own choice where the pattern has no blocks."""
        return None if self.block is None else self.block.inputs

    @property
    def steps(self) -> int:
        """Steps of the refit."""
        return refit_steps(self.refit_steps, self.selection)
