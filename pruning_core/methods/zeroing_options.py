"""`ZeroingMethod`, the base of the options of methods that set weights to zero. Torch-free."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.options import MethodOptions, ZeroingOptions
from pruning_core.spec.targets import Target
from pruning_core.spec.tasks import KINDS, TaskType
from pruning_core.spec.training import check_tier


class ZeroingMethod(MethodOptions):
    """Base of the options of methods that keep shapes and set weights to zero."""

    @property
    @abstractmethod
    def zeroing(self) -> ZeroingOptions:
        """These options."""

    @classmethod
    def complete(cls, given: dict[str, Any], fields: object) -> dict[str, Any]:
        """Add the compressed form to the formats, unless weights are paged: it is made of the whole model at once."""
        del fields
        artifacts, memory = given.get("artifacts", {}), given.get("memory")
        if not isinstance(artifacts, Mapping):
            return given
        paged = isinstance(memory, Mapping) and cast("Mapping[str, Any]", memory).get("weights") == "paged"
        formats = {} if paged else {"formats": ("safetensors", "compressed")}
        return {**given, "artifacts": {**formats, **cast("Mapping[str, Any]", artifacts)}}

    def check_targets(self, targets: Sequence[Target], *, recovery: str, labels: bool) -> None:
        """Refuse what no method of this kind supports, then what this method does not support."""
        own = self.zeroing
        if recovery == "masks":
            raise ValueError(f"{own.name} refits weights: recovery.kind must be weights or none")
        self.check_sparsity(targets)
        check_tier(own.tier, own.training, labels=labels, selection_trains=own.selection == "admm")

    @abstractmethod
    def check_sparsity(self, targets: Sequence[Target]) -> None:
        """Refuse targets that the method does not support.

        Raises:
            ValueError: The method does not support one of them.
        """

    def check_task(self, task_type: TaskType) -> None:
        """Refuse training on labels that define no loss."""
        if KINDS[task_type].has_loss or not (self.trains and self.zeroing.training.needs_labels):
            return
        raise DatasetInvalid(
            f"the trained tier needs labels that make a loss, and those of a {task_type} task make none: set "
            "method.training.distillation to 1, so that the dense model's outputs alone are trained on, or take tier one-shot",
            param="method.training.distillation",
        )
