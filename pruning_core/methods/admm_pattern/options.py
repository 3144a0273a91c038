"""Options of ``admm-pattern``. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from pruning_core.methods.admm_pattern.coverage import check_coverage
from pruning_core.methods.zeroing_options import ZeroingMethod
from pruning_core.spec.grammar import UNSTRUCTURED, BlockPattern, MatrixShape, parse_pattern
from pruning_core.spec.options import Selection
from pruning_core.spec.presets import Preset
from pruning_core.spec.refit import Damping, Iterations, RefitSteps, refit_steps
from pruning_core.spec.targets import Target
from pruning_core.spec.training import PatternTraining, Tier


def _pattern(text: str) -> str:
    parse_pattern(text)
    return text


PatternText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=32),
    AfterValidator(_pattern),
    Field(description="N:M, PxQ:K (PxQ keeps half of a block) or unstructured, which needs a sparsity target."),
]


class AdmmPattern(ZeroingMethod):
    """N:M, pattern and unstructured sparsity in every linear layer; shapes stay (ADMM on Grams, Wang 2024, ALPS 2024).

    The kept weights are selected and refitted on calibration data, without labels and without training. Tier ``trained`` goes
    on from there with the task's loss. ``recovery.kind`` none skips the refit: weights stay as the selection leaves them. Of
    the other settings of recovery only ``holdout`` is used; the rest are for methods that remove units.
    """

    planner: ClassVar[str] = "pruning_core.methods.admm_pattern.plan:prepare"
    implies_target: ClassVar[bool] = True
    by_default: ClassVar[str] = (
        "ADMM on the Gram matrix of each layer's inputs, and a refit of the kept weights by conjugate gradients: one shot, "
        "without labels or training, as ALPS does. The paper's training is preset paper."
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "The training of Wang 2024: ADMM on the task's loss from the dense weights, its penalty a term of the loss, then "
            "SR-STE; labels alone, without the dense model's outputs.",
            {
                "method.tier": "trained",
                "method.training.start": "dense",
                "method.training.refit": False,
                "method.training.penalty": "coupled",
                "method.training.finish": "sr-ste",
                "method.training.distillation": 0.0,
                "method.training.hidden": 0.0,
                "method.training.dropout": True,
            },
        )
    }

    name: Literal["admm-pattern"] = "admm-pattern"
    pattern: PatternText = "2:4"
    tier: Tier = Field(
        default="one-shot",
        description="one-shot: no labels, no training; trained: one-shot, then training on the task under the pattern.",
    )
    selection: Selection = Field(
        default="admm", description="What selects the weights: admm, or one of the baselines for comparison."
    )
    pool: int | None = Field(
        default=32,
        ge=2,
        le=256,
        description="Number of arrangements, mined from the weights, that blocks of several outputs may have; null: any.",
    )
    iterations: Iterations = 12
    refit_steps: RefitSteps = None
    damping: Damping = 0.01
    training: PatternTraining = Field(default=PatternTraining(), description="Options of tier trained.")

    @property
    def block(self) -> BlockPattern | None:
        """The parsed pattern; None for unstructured."""
        return parse_pattern(self.pattern)

    @property
    def obs_group(self) -> int | None:
        """Number of inputs that the optimal brain surgeon prunes at a time; None, its own choice, if there are no blocks."""
        return None if self.block is None else self.block.inputs

    @property
    def steps(self) -> int:
        """Number of steps of the refit."""
        return refit_steps(self.refit_steps, self.selection)

    @property
    def zeroing(self) -> AdmmPattern:
        """These options."""
        return self

    @property
    def title(self) -> str:
        """Name of the structure of the zeros in reports."""
        return self.pattern

    @classmethod
    def complete(cls, given: dict[str, Any], fields: object) -> dict[str, Any]:
        """Add the compressed form, the stock layout (no shape changes), and the target that follows from the pattern."""
        completed = super().complete(given, fields)
        artifacts = completed.get("artifacts", {})
        if isinstance(artifacts, Mapping):
            completed = {**completed, "artifacts": {"layout": "stock", **cast("Mapping[str, Any]", artifacts)}}
        try:
            block = cls.model_validate(fields).block
        except ValidationError:
            return given  # the field's own validation says what is wrong
        if block is not None and given.get("target") is None and not given.get("targets"):
            completed["target"] = {"metric": "pattern", "sparsity": block.sparsity}
        return completed

    def check_sparsity(self, targets: Sequence[Target]) -> None:
        """Refuse targets that are no sparsity, or not the pattern's."""
        if any(target.metric not in ("sparsity", "pattern") for target in targets):
            raise ValueError(
                f"{self.name} keeps every shape, so that only a "
                "sparsity can be asked for; macs, params and latency are targets of methods that remove heads and neurons"
            )
        block = self.block
        if block is None:
            if not targets or any(target.metric == "pattern" for target in targets):
                raise ValueError(f"pattern {UNSTRUCTURED} needs a sparsity: it does not follow from the pattern")
        elif [round(target.requested, 6) for target in targets] != [round(block.sparsity, 6)]:
            raise ValueError(
                f"pattern {self.pattern} means a sparsity of {block.sparsity:g}; leave the target out, or choose "
                f"another pattern or {UNSTRUCTURED}"
            )

    def check_matrices(self, matrices: Sequence[MatrixShape], sparsities: Sequence[float]) -> None:
        """Refuse a pattern that is larger than a matrix, or that leaves too many weights dense."""
        check_coverage(self.pattern, matrices, sparsities)
