"""Options of the trained tiers: one set for the one training loop, and what each method adds to it. Torch-free."""

from __future__ import annotations

from functools import partial
from operator import eq
from typing import Literal

from pydantic import Field, model_validator

from pruning_core.spec.frozen import Frozen

_REFIT = (
    "Start dense: training chooses the weights that stay, they are refitted from the dense weights by least squares, and the "
    "rest of the steps fine-tunes them. False: they go on with the values that the penalty left, as in the papers."
)
# Under the group Lasso, where a weight has as far to go as it is large.
_LASSO_RATE = 5e-4
Tier = Literal["one-shot", "trained"]


class TrainingOptions(Frozen):
    """Training of a pruned model: AdamW on the task's labels, the dense model's outputs, or both.

    Embeddings are not trained: the pruned layers lie behind them, and they hold half of a small model's weights.
    """

    epochs: int = Field(default=2, ge=1, le=100, description="Passes over the training rows.")
    learning_rate: float = Field(
        default=5e-5, gt=0, le=1, description="Peak learning rate, after a linear warm-up and before a linear decay to zero."
    )
    warmup: float = Field(default=0.06, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    batch_size: int = Field(default=32, ge=1, le=4096, description="Sequences in each step, over all devices together.")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Decoupled weight decay; it applies to matrices only.")
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6)
    distillation: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of the dense model's outputs in the loss; labels have the rest. 1: the data needs no labels.",
    )
    hidden: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="Weight of the distance to the dense model's hidden states; 0: no such term.",
    )
    temperature: float = Field(default=2.0, gt=0, le=100, description="Softens the class distributions that are compared.")
    dropout: bool = Field(default=False, description="Whether the model's own dropout is active.")
    max_train_rows: int | None = Field(
        default=None, ge=8, description="Number of rows to use, drawn with the seed; null: the whole training split."
    )
    holdout: float = Field(
        default=0.05, gt=0, le=0.5, description="Share of those rows, 1024 at most, that is held out to judge the weights."
    )
    patience: int | None = Field(
        default=None, ge=1, le=1000, description="Stop after this many judgements in a row without a new best; null: never."
    )
    judgements: int = Field(default=4, ge=1, le=100, description="Judgements on the held-out rows in each epoch.")

    @property
    def needs_labels(self) -> bool:
        """Whether training reads the labels."""
        return self.distillation < 1


class PatternTraining(TrainingOptions):
    """Training under a pattern: ADMM (Wang 2024), then fine-tuning on its support, or by SR-STE (Zhou 2021)."""

    start: Literal["one-shot", "dense"] = Field(
        default="one-shot", description="Weights that training starts from: those of the one-shot tier, or the dense ones."
    )
    admm: float = Field(default=0.5, ge=0, le=1, description="Share of the steps under ADMM's penalty; 0: pruned at the start.")
    refit: bool = Field(default=True, exclude_if=partial(eq, True), description=_REFIT)
    rho_first: float = Field(default=1e-3, gt=0, le=1000, description="First value of ADMM's penalty rho.")
    rho_last: float = Field(default=1.0, gt=0, le=1000, description="Last value of rho, reached whatever the number of steps.")
    rho_growth: float = Field(default=1.1, gt=1, le=10, description="Least growth of rho at each dual update.")
    penalty: Literal["decoupled", "coupled"] = Field(
        default="decoupled",
        description="decoupled: apart from AdamW, as weight decay does, each step moves the weights rho / (1 + rho) of the way "
        "to the pattern; coupled: the penalty's gradient is added to that of the loss.",
    )
    finish: Literal["fixed", "sr-ste", "none"] = Field(
        default="fixed",
        description="What follows ADMM. fixed: fine-tuning of the weights that it chose; sr-ste: fine-tuning in which the "
        "choice may still change; none: pruning alone.",
    )
    decay: float = Field(default=2e-4, ge=0, le=1, description="SR-STE's decay of pruned weights in a step at the peak rate.")

    @property
    def share(self) -> float:
        """Share of the steps that choose."""
        return self.admm

    @model_validator(mode="after")
    def _rho_grows(self) -> PatternTraining:
        if self.rho_first > self.rho_last:
            raise ValueError("rho_first must not be above rho_last: the penalty grows")
        if self.finish == "none" and self.admm < 1:
            raise ValueError("with finish none all steps are ADMM's: set admm to 1, or choose finish fixed or sr-ste")
        return self


class LassoTraining(TrainingOptions):
    """Training towards block sparsity: reweighted group Lasso (Li et al. 2020), then fine-tuning under its mask."""

    start: Literal["one-shot", "dense"] = Field(
        default="one-shot",
        description="one-shot: start from the weights of the one-shot tier and fine-tune its segments; dense: start from the "
        "dense weights and let the Lasso choose the segments.",
    )
    lasso: float | None = Field(
        default=None, ge=0, le=1, description="Share of the steps under the penalty; null: half from dense weights, else none."
    )
    refit: bool = Field(default=True, exclude_if=partial(eq, True), description=_REFIT)
    strength: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Strength of the penalty. 1: it takes a group at the target's threshold to zero by the end of the phase.",
    )
    milestones: int = Field(default=8, ge=1, le=1000, description="How often the penalty is reweighted, evenly over the phase.")
    penalised: Literal["near", "all"] = Field(
        default="near",
        exclude_if=partial(eq, "near"),
        description="near: groups near a threshold that rises with the share of zeros; all: every group, as in the paper.",
    )
    chooses: Literal["shares", "segments"] = Field(
        default="shares",
        exclude_if=partial(eq, "shares"),
        description="With refit, what the Lasso decides. shares: how many weights of each matrix stay, and ADMM then finds "
        "which segments, as in the one-shot tier; segments: which segments stay.",
    )
    lasso_learning_rate: float = Field(
        default=_LASSO_RATE,
        exclude_if=partial(eq, _LASSO_RATE),
        gt=0,
        le=1,
        description="With refit: peak learning rate under the penalty, where weights must travel as far as their own size.",
    )
    epsilon: float = Field(
        default=1e-3,
        gt=0,
        le=1,
        description="Epsilon of a group's penalty weight, 1 / (norm + epsilon), relative to the mean norm.",
    )

    @property
    def share(self) -> float:
        """Share of the steps that choose: those under the penalty."""
        return self.lasso if self.lasso is not None else 0.5 if self.start == "dense" else 0.0

    @model_validator(mode="after")
    def _something_prunes(self) -> LassoTraining:
        if self.start == "dense" and self.share == 0:
            raise ValueError(
                "with start dense lasso must be > 0, since the Lasso chooses the segments; else set start to one-shot"
            )
        return self


def check_tier(tier: Tier, training: TrainingOptions, *, labels: bool, selection_trains: bool) -> None:
    """Refuse at submit a tier that cannot work.

    Args:
        tier: The method's tier.
        training: The method's training options.
        labels: Whether the task's data has labels.
        selection_trains: Whether training can follow the method's selection.

    Raises:
        ValueError: It cannot work.
    """
    if tier == "one-shot":
        if training != type(training)():
            raise ValueError("training is given, and tier one-shot does not train: set method.tier to trained")
        return
    if training.needs_labels and not labels:
        raise ValueError(
            "the trained tier needs labels, and this task has none: set method.training.distillation to 1, so that the dense "
            "model's outputs alone are trained on, or take tier one-shot"
        )
    if not selection_trains:
        raise ValueError("the trained tier needs selection admm; the other selections are baselines of the one-shot tier")
