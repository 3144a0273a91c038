"""Options of ``fisher-cg``. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import eq
from typing import ClassVar, Literal

from pydantic import Field

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.options import MethodOptions
from pruning_core.spec.presets import Preset
from pruning_core.spec.tasks import KINDS, TaskType


class FisherCG(MethodOptions):
    """Structured pruning of heads and neurons by a Fisher mask search, then least-squares recovery (Li, Zhu, Sun 2024)."""

    planner: ClassVar[str] = "pruning_core.methods.fisher_cg.scores:prepare"
    prices_loss: ClassVar[bool] = True
    cuts_experts: ClassVar[bool] = True
    by_default: ClassVar[str] = (
        "The true Fisher information, without labels, and a share of the output energy choose the units; the weights of the "
        "output projections are refitted by least squares, directly solved. The papers' own steps are preset paper."
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "The steps of Li, Zhu, Sun 2024 in the frame of Kwon et al. 2022: Fisher information over the labels and nothing "
            "else, units rearranged within their sublayers, one scale for each unit by conjugate gradients.",
            {
                "method.labels": "use",
                "method.representation": 0.0,
                "method.rearrange": True,
                "recovery.kind": "masks",
                "recovery.solver": "cg",
                "calibration.sampling": "uniform",
                "calibration.self_written": 0.0,
            },
        )
    }

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

    interactions: Literal["none", "kronecker"] = Field(
        default="none",
        exclude_if=partial(eq, "none"),
        description="none: a unit's importance does not depend on which others go, as in the papers. kronecker: units are "
        "removed one after the other, and each is priced by what the others of its sublayer cannot take over (the optimal "
        "brain surgeon, on a Kronecker-factored curvature): better on text like the calibration's and worse off it. Its "
        "matrices take about as much memory as the weights.",
    )

    experts: Literal["reap", "fisher", "frequency"] = Field(
        default="fisher",
        exclude_if=partial(eq, "fisher"),
        description="What experts of a mixture are chosen by. fisher: the Fisher information of a mask on what an expert "
        "gives, as for all other units. reap: the mean length of what it adds to the tokens that pass through it (arXiv "
        "2510.13999). frequency: the number of these tokens, a baseline.",
    )

    drop_attention: bool = Field(
        default=False,
        exclude_if=partial(eq, False),
        description="In the layout serve, layers behind the first may lose their attention as a whole, where that costs less "
        "than narrower FFNs; their part of the key-value cache goes with it. Large decoders lose little by it (arXiv "
        "2406.15786, 2501.17771); a small one lost more than by narrower FFNs (decision 129).",
    )

    @property
    def drops_attention(self) -> bool:
        """Whether layers may lose their attention as a whole."""
        return self.drop_attention

    def check_task(self, task_type: TaskType) -> None:
        """Refuse the empirical Fisher information for tasks whose labels define no loss."""
        if not KINDS[task_type].has_loss and self.labels == "use":
            raise DatasetInvalid("labels are required by method.labels = use, but the task has none", param="method.labels")
