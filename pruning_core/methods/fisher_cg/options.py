"""Options of ``fisher-cg``. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.options import MethodOptions
from pruning_core.spec.tasks import KINDS, TaskType


class FisherCG(MethodOptions):
    """Structured pruning of heads and neurons by a Fisher mask search, then least-squares recovery (Li, Zhu, Sun 2024)."""

    planner: ClassVar[str] = "pruning_core.methods.fisher_cg.scores:prepare"

    name: Literal["fisher-cg"] = "fisher-cg"
    labels: Literal["ignore", "auto", "use"] = Field(
        default="ignore",
        description="ignore: the true Fisher information, over the model's own predictions; it needs no labels and varies less "
        "from draw to draw. use: the empirical Fisher information, over the labels, as in the papers. auto: use if the data "
        "has labels, else ignore.",
    )
    representation: float = Field(
        default=0.2,
        ge=0,
        le=100,
        description="Weight of a unit's share of its sublayer's output energy, added to its Fisher information; 0: as in the "
        "paper.",
    )
    rearrange: bool = Field(
        default=False,
        description="Swap units inside a sublayer by the off-diagonal Fisher information. It helps if recovery.kind is none.",
    )

    def check_task(self, task_type: TaskType) -> None:
        """Refuse the empirical Fisher information for tasks whose labels define no loss."""
        if not KINDS[task_type].has_loss and self.labels == "use":
            raise DatasetInvalid("labels are required by method.labels = use, but the task has none", param="method.labels")
