"""How a model is pruned: the methods of a spec and their options. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from pruning_core.frozen import Frozen
from pruning_core.lasso_spec import BlockLasso
from pruning_core.patterns.grammar import BlockPattern, parse_pattern
from pruning_core.refit_spec import Damping, Iterations, RefitSteps, refit_steps
from pruning_core.training_spec import PatternTraining, Tier


class FisherCG(Frozen):
    """Structured pruning of heads and neurons: Fisher mask search, then least-squares recovery (Li, Zhu, Sun 2024)."""

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


class Magnitude(Frozen):
    """Baseline: a unit's importance is the squared norm of its output weights."""

    name: Literal["magnitude"] = "magnitude"


class Random(Frozen):
    """Baseline: importance drawn uniformly with the seed."""

    name: Literal["random"] = "random"


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


UnitMethod = FisherCG | Magnitude | Random
# Those that keep shapes and set weights to zero.
ZeroMethod = AdmmPattern | BlockLasso
MethodName = Literal["fisher-cg", "admm-pattern", "block-lasso", "magnitude", "random"]
METHOD_NAMES: tuple[MethodName, ...] = get_args(MethodName)


def _expand_method(value: object) -> object:
    """Turn ``"fisher-cg"`` into ``{"name": "fisher-cg"}``; name the known methods when it is not one."""
    given = {"name": value} if isinstance(value, str) else value
    if isinstance(given, Mapping):
        name = cast("Mapping[str, Any]", given).get("name")
        if name not in METHOD_NAMES:
            raise ValueError(f"unknown method; known methods are {', '.join(METHOD_NAMES)}")
    return cast("object", given)


Method = Annotated[
    Annotated[FisherCG | AdmmPattern | BlockLasso | Magnitude | Random, Field(discriminator="name")],
    BeforeValidator(
        _expand_method, json_schema_input_type=MethodName | FisherCG | AdmmPattern | BlockLasso | Magnitude | Random
    ),
]
