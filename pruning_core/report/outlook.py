"""What other budgets would cost, from the statistics of the dense model alone: no checkpoint is built for it. Torch-free."""

from __future__ import annotations

from pydantic import Field

from pruning_core.spec.frozen import Frozen


class OutlookPoint(Frozen):
    """One budget: counts of the mask that would be chosen, and what the scores say is lost with it."""

    keep: float = Field(description="Share of the blocks' multiply-accumulates that stays.")
    parameters: int
    bytes: int = Field(description="Of the weight files, at the bytes for each parameter of the checkpoint that was built.")
    cost: float = Field(
        description="Sum of the scores of the units that go. It has no unit: what it means is known from checkpoints that were "
        "built."
    )


class OutlookReport(Frozen):
    """Budgets from large to small, down to the smallest that a mask can meet."""

    points: tuple[OutlookPoint, ...]
