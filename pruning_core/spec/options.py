"""What a method tells of itself in a request: the base of every method's options. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.grammar import MatrixShape
from pruning_core.spec.targets import Target
from pruning_core.spec.tasks import TaskType
from pruning_core.spec.training import Tier, TrainingOptions

Selection = Literal["admm", "sparsegpt", "wanda", "magnitude"]


class ZeroingOptions(Protocol):
    """Options of the methods that set weights to zero: how the weights are chosen, refitted and trained."""

    @property
    def name(self) -> str:
        """Name of the method."""
        ...

    @property
    def tier(self) -> Tier:
        """Whether a training follows."""
        ...

    @property
    def selection(self) -> Selection:
        """What chooses the weights: ADMM, or a baseline."""
        ...

    @property
    def iterations(self) -> int:
        """Upper bound of ADMM steps a matrix."""
        ...

    @property
    def steps(self) -> int:
        """Steps of the refit."""
        ...

    @property
    def damping(self) -> float:
        """Ridge, relative to the mean diagonal of the Gram."""
        ...

    @property
    def obs_group(self) -> int | None:
        """Inputs that the optimal brain surgeon prunes at a time; the paper's when None."""
        ...

    @property
    def training(self) -> TrainingOptions:
        """Options of tier ``trained``."""
        ...

    @property
    def title(self) -> str:
        """What reports call the structure of the zeros."""
        ...


class MethodOptions(Frozen):
    """Base of the options of a method. What a request, its checks and the pages ask of a method is asked here.

    Attributes:
        planner: Where the method is, as ``module:function``: the function makes a `pruning_core.methods.base.Planner`.
        implies_target: Whether a target may be left out, since it follows from the options.
    """

    planner: ClassVar[str]
    implies_target: ClassVar[bool] = False

    @property
    def zeroing(self) -> ZeroingOptions | None:
        """The options, where the method sets weights to zero; None where it removes units."""
        return None

    @property
    def removes_units(self) -> bool:
        """Whether heads and neurons go, and shapes change."""
        return self.zeroing is None

    @property
    def trains(self) -> bool:
        """Whether a training follows the pruning."""
        return self.zeroing is not None and self.zeroing.tier == "trained"

    @classmethod
    def complete(cls, given: dict[str, Any], fields: object) -> dict[str, Any]:
        """Return the fields of a spec as they were sent, completed by what follows from the method.

        Args:
            given: Fields of the spec; not changed.
            fields: Those of the method, not yet validated.
        """
        del fields
        return given

    def check_targets(self, targets: Sequence[Target], *, recovery: str, labels: bool) -> None:
        """Refuse targets, a recovery or a training that the method cannot have.

        Args:
            targets: All targets of the spec.
            recovery: ``recovery.kind``.
            labels: Whether the data of the task has labels.

        Raises:
            ValueError: One does not fit.
        """
        del recovery, labels
        if any(target.metric == "pattern" for target in targets):
            raise ValueError("a pattern target needs method admm-pattern; give a sparsity, or keep of macs, params or latency")

    def check_task(self, task_type: TaskType) -> None:
        """Refuse a task that the method cannot learn from.

        Raises:
            DatasetInvalid: Labels are needed, and the task has none that make a loss.
        """

    def check_matrices(self, matrices: Sequence[MatrixShape], sparsities: Sequence[float]) -> None:
        """Refuse matrices that the structure of the zeros does not fit.

        Args:
            matrices: All prunable ones.
            sparsities: Of targets that count all prunable weights.

        Raises:
            TargetUnreachable: One does not fit.
        """
