"""Options of ``admm-pattern``. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from pruning_core.methods.admm_pattern.coverage import check_coverage
from pruning_core.methods.zeroing_options import ZeroingMethod
from pruning_core.spec.grammar import UNSTRUCTURED, BlockPattern, MatrixShape, parse_pattern
from pruning_core.spec.options import Selection
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
    Field(description="N:M, PxQ:K (PxQ keeps half) or unstructured, which takes a sparsity target."),
]


class AdmmPattern(ZeroingMethod):
    """N:M, pattern and unstructured sparsity of every linear of the blocks; shapes stay (ADMM on Grams, Wang 2024, ALPS 2024).

    What is kept is chosen and refitted on calibration data, without labels and without training; tier ``trained`` goes on from
    there with the task's loss. ``recovery.kind`` none leaves the chosen weights as the selection gives them; other settings of
    recovery but ``holdout`` are those of methods that remove units.
    """

    planner: ClassVar[str] = "pruning_core.methods.admm_pattern.plan:prepare"
    implies_target: ClassVar[bool] = True

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

    @property
    def zeroing(self) -> AdmmPattern:
        """The options themselves."""
        return self

    @property
    def title(self) -> str:
        """What reports call the structure."""
        return self.pattern

    @classmethod
    def complete(cls, given: dict[str, Any], fields: object) -> dict[str, Any]:
        """Add the stock layout, since no shape changes, the compressed form, and the target that follows from the pattern."""
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
        """Refuse what is no sparsity, or not that of the pattern."""
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
        """Refuse a pattern that is larger than a matrix, or that leaves too much dense."""
        check_coverage(self.pattern, matrices, sparsities)
