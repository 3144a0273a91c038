"""`MethodOptions`, the base of every method's options in a request. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from pydantic import ConfigDict
from pydantic.config import JsonDict

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.grammar import MatrixShape
from pruning_core.spec.presets import NO_PRESETS, Preset, document
from pruning_core.spec.targets import Target
from pruning_core.spec.tasks import TaskType
from pruning_core.spec.training import Tier, TrainingOptions

Selection = Literal["admm", "sparsegpt", "wanda", "magnitude"]


class ZeroingOptions(Protocol):
    """Options of the methods that set weights to zero: how the weights are selected, refitted and trained."""

    @property
    def name(self) -> str:
        """Name of the method."""
        ...

    @property
    def tier(self) -> Tier:
        """Tier: ``one-shot``, or ``trained``, where training follows."""
        ...

    @property
    def selection(self) -> Selection:
        """What selects the weights: ADMM, or a baseline."""
        ...

    @property
    def iterations(self) -> int:
        """Largest number of ADMM steps for each matrix."""
        ...

    @property
    def steps(self) -> int:
        """Number of steps of the refit."""
        ...

    @property
    def damping(self) -> float:
        """Ridge, relative to the mean diagonal of the Gram matrix."""
        ...

    @property
    def obs_group(self) -> int | None:
        """Number of inputs that the optimal brain surgeon prunes at a time; None: the paper's."""
        ...

    @property
    def training(self) -> TrainingOptions:
        """Options of tier ``trained``."""
        ...

    @property
    def title(self) -> str:
        """Name of the structure of the zeros in reports."""
        ...


def _document_presets(schema: JsonDict, options: type[MethodOptions]) -> None:
    document(schema, options.presets)


class MethodOptions(Frozen):
    """Base of the options of a method. It answers all that a request, its checks and the pages need to know of a method.

    Attributes:
        planner: The function that makes the method's `pruning_core.methods.base.Planner`, as ``module:function``.
        cuts_experts: Whether it is for mixtures of experts, too.
        implies_target: Whether the target may be left out because it follows from the options.
        by_default: The technique that runs where no option is set, in one sentence.
        presets: Settings under one name, that `preset` among the options stands for.
    """

    model_config = ConfigDict(json_schema_extra=_document_presets)

    prices_loss: ClassVar[bool] = False
    cuts_experts: ClassVar[bool] = False
    planner: ClassVar[str]
    implies_target: ClassVar[bool] = False
    by_default: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Preset]] = NO_PRESETS

    @property
    def zeroing(self) -> ZeroingOptions | None:
        """These options, if the method sets weights to zero; None if it removes units."""
        return None

    @property
    def removes_units(self) -> bool:
        """Whether the method removes heads and neurons, which changes shapes."""
        return self.zeroing is None

    @property
    def drops_attention(self) -> bool:
        """Whether layers may lose their attention as a whole, where the engines that are asked for take that."""
        return False

    @property
    def trains(self) -> bool:
        """Whether training follows the pruning."""
        return self.zeroing is not None and self.zeroing.tier == "trained"

    @classmethod
    def complete(cls, given: dict[str, Any], fields: object) -> dict[str, Any]:
        """Return the fields of a spec, completed with what follows from the method.

        Args:
            given: Fields of the spec as they were sent; not changed.
            fields: Fields of the method, not yet validated.
        """
        del fields
        return given

    def check_targets(self, targets: Sequence[Target], *, recovery: str, labels: bool) -> None:
        """Refuse targets, a recovery or a training that the method does not support.

        Args:
            targets: All targets of the spec.
            recovery: ``recovery.kind`` of the spec.
            labels: Whether the data of the task has labels.

        Raises:
            ValueError: One of them is not supported.
        """
        del recovery, labels
        if any(target.metric == "pattern" for target in targets):
            raise ValueError("a pattern target needs method admm-pattern; give a sparsity, or keep of macs, params or latency")

    def check_task(self, task_type: TaskType) -> None:
        """Refuse a task whose labels the method cannot use.

        Raises:
            DatasetInvalid: The method needs labels, and the task has none that define a loss.
        """

    def check_matrices(self, matrices: Sequence[MatrixShape], sparsities: Sequence[float]) -> None:
        """Refuse matrices that the structure of the zeros does not fit.

        Args:
            matrices: All prunable matrices.
            sparsities: The requested sparsities of all prunable weights.

        Raises:
            TargetUnreachable: A matrix does not fit, or a sparsity is out of reach.
        """
