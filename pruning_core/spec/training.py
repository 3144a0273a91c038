"""Options of the trained tiers: one training loop for all methods, so one set of options; what a pattern adds. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pruning_core.spec.frozen import Frozen

Tier = Literal["one-shot", "trained"]


class TrainingOptions(Frozen):
    """How a pruned model is trained: AdamW on the task's labels, the dense model's outputs, or both.

    Embeddings are not trained: what is pruned lies behind them, and half of a small model's weights are there.
    """

    epochs: int = Field(default=2, ge=1, le=100, description="Passes over the rows that are trained on.")
    learning_rate: float = Field(default=5e-5, gt=0, le=1, description="Peak: warmed up to linearly, then down to zero.")
    warmup: float = Field(default=0.06, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    batch_size: int = Field(default=32, ge=1, le=4096, description="Sequences a step, over all devices together.")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="Decoupled, of matrices alone.")
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6)
    distillation: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of the dense model's outputs beside the labels'. 1: the labels are not read and need not be there.",
    )
    hidden: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="Weight of the distance to the dense model's hidden states; 0: they are left out.",
    )
    temperature: float = Field(default=2.0, gt=0, le=100, description="Of the classes' distributions that are compared.")
    dropout: bool = Field(default=False, description="Whether the model's own dropout is on.")
    max_train_rows: int | None = Field(
        default=None, ge=8, description="Train on so many rows, drawn with the seed; null: on all of the training split."
    )
    holdout: float = Field(
        default=0.05, gt=0, le=0.5, description="Share of those rows, 1024 at most, that judges and is not trained on."
    )
    patience: int | None = Field(
        default=None, ge=1, le=1000, description="Stop after so many judgements in a row without a new best; null: never."
    )
    judgements: int = Field(default=4, ge=1, le=100, description="Times an epoch that the held-out rows judge.")

    @property
    def needs_labels(self) -> bool:
        """Whether the labels are read."""
        return self.distillation < 1


class PatternTraining(TrainingOptions):
    """Training under a pattern: ADMM (Wang 2024), then fine-tuning of what it has chosen, fixed or by SR-STE (Zhou 2021)."""

    start: Literal["one-shot", "dense"] = Field(
        default="one-shot", description="What training begins with: the weights of the one-shot tier, or the dense ones."
    )
    admm: float = Field(
        default=0.5, ge=0, le=1, description="Share of the steps under ADMM's penalty; 0: weights are pruned at once."
    )
    rho_first: float = Field(default=1e-3, gt=0, le=1000, description="ADMM's penalty at first.")
    rho_last: float = Field(default=1.0, gt=0, le=1000, description="ADMM's penalty at last, however many steps there are.")
    rho_growth: float = Field(default=1.1, gt=1, le=10, description="Growth at each dual update, at the least.")
    penalty: Literal["decoupled", "coupled"] = Field(
        default="decoupled",
        description="decoupled: each step moves weights by rho / (1 + rho) of the way, past AdamW, as weight decay does; "
        "coupled: the penalty's gradient is added to the loss's.",
    )
    finish: Literal["fixed", "sr-ste", "none"] = Field(
        default="fixed",
        description="After ADMM: fixed: what it chose is trained on; sr-ste: weights may still come and go; none: pruned, and "
        "that is all.",
    )
    decay: float = Field(default=2e-4, ge=0, le=1, description="SR-STE's decay of pruned weights, a step at the peak rate.")

    @model_validator(mode="after")
    def _rho_grows(self) -> PatternTraining:
        if self.rho_first > self.rho_last:
            raise ValueError("rho_first must not be above rho_last: the penalty grows")
        if self.finish == "none" and self.admm < 1:
            raise ValueError("with finish none all steps are ADMM's: set admm to 1, or choose finish fixed or sr-ste")
        return self


class LassoTraining(TrainingOptions):
    """Training towards blocks: reweighted group Lasso (Li et al. 2020), then masked fine-tuning of what it has left."""

    start: Literal["one-shot", "dense"] = Field(
        default="one-shot",
        description="one-shot: the weights and the segments of the one-shot tier, which are fine-tuned; dense: the dense "
        "weights, of which the Lasso chooses.",
    )
    lasso: float | None = Field(
        default=None, ge=0, le=1, description="Share of the steps under the penalty; null: half of them from dense, else none."
    )
    strength: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Of the penalty. 1: what takes a group at the target's threshold to zero by the end of the phase.",
    )
    milestones: int = Field(default=8, ge=1, le=1000, description="Times that the penalty is reweighted, evenly in the phase.")
    epsilon: float = Field(default=1e-3, gt=0, le=1, description="Beside a norm in its weight, relative to the mean norm.")

    @property
    def share(self) -> float:
        """Share of the steps under the penalty."""
        return self.lasso if self.lasso is not None else 0.5 if self.start == "dense" else 0.0

    @model_validator(mode="after")
    def _something_prunes(self) -> LassoTraining:
        if self.start == "dense" and self.share == 0:
            raise ValueError("from dense weights the Lasso chooses what goes: lasso must be > 0, or start one-shot")
        return self


def check_tier(tier: Tier, training: TrainingOptions, *, labels: bool, selection_trains: bool) -> None:
    """Refuse a tier that cannot work, at submit.

    Args:
        tier: Of the method.
        training: Its options.
        labels: Whether the task's data has labels.
        selection_trains: Whether what chooses the weights can begin a training.

    Raises:
        ValueError: It cannot.
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
        raise ValueError("the trained tier begins with selection admm; baselines of the one-shot tier are measured without it")
