"""Options of ``fisher-cg``. Torch-free."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.options import MethodOptions
from pruning_core.spec.tasks import KINDS, TaskType


class FisherCG(MethodOptions):
    """Structured pruning of heads and neurons: Fisher mask search, then least-squares recovery (Li, Zhu, Sun 2024)."""

    planner: ClassVar[str] = "pruning_core.methods.fisher_cg.scores:prepare"

    name: Literal["fisher-cg"] = "fisher-cg"
    labels: Literal["ignore", "auto", "use"] = Field(
        default="ignore",
        description="ignore: the true Fisher, over the model's own predictions, needs no labels and varies less from draw to "
        "draw; use: the empirical Fisher, over the labels, as in the papers; auto: that where the data has labels.",
    )
    representation: float = Field(
        default=0.2,
        ge=0,
        le=100,
        description="Weight of a unit's share of its sublayer's output energy beside its Fisher information; 0: the paper's.",
    )
    rearrange: bool = Field(
        default=False,
        description="Swap units inside a sublayer by the off-diagonal Fisher. Helps where nothing repairs the weights.",
    )

    def check_task(self, task_type: TaskType) -> None:
        """Refuse the empirical Fisher where no label makes a loss."""
        if not KINDS[task_type].has_loss and self.labels == "use":
            raise DatasetInvalid("labels are required by method.labels = use, but the task has none", param="method.labels")
