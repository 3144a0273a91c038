"""Reports of quality: the metric of both models, how sure it is, and the floor. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen


class IntervalReport(Frozen):
    """An interval of a figure: with repeated samples of rows, so many of such intervals would hold the true figure."""

    low: float
    high: float
    confidence: float
    method: str = Field(description="bootstrap: percentiles over rows drawn again. wilson: for the share of right rows.")


class ChangedReport(Frozen):
    """How many answers differ from the dense model's, and how many of them became right or wrong."""

    answers: int
    gained: int = Field(description="Answers that were wrong and are right.")
    lost: int = Field(description="Answers that were right and are wrong.")
    of: str = Field(default="row", description="What an answer is the answer to: row, word or token.")


class DifferenceReport(Frozen):
    """The pruned model's metric minus the dense model's, on the same rows, with its interval and a test."""

    value: float
    low: float
    high: float
    confidence: float
    method: str = Field(
        default="bootstrap",
        description="bootstrap: percentiles over rows drawn again, both models' together. bonett-price: for the share of right "
        "rows.",
    )
    p_value: float = Field(description="Probability of a difference as large or larger if the models were equally good.")
    test: Literal["mcnemar", "permutation"] = Field(
        description="mcnemar: exact, for the share of right rows. permutation: the models' answers exchanged within rows."
    )


class PrecisionReport(Frozen):
    """The precision that both models computed in, where there was a choice."""

    dtype: str
    reason: str = Field(description="Why: how far it agrees with float32, or what speaks against the stored type.")
    disagrees: bool = Field(default=False, description="Whether the stored type was tried, and changed too much.")


class QualityReport(Frozen):
    """The task's metric on the validation split. ``details`` holds further metrics of the pruned model."""

    metric: str
    dense: float
    pruned: float
    samples: int
    lower_is_better: bool = Field(
        default=False, description="Whether lower values of the metric are better, as for perplexity."
    )
    details: dict[str, float] = Field(default_factory=dict[str, float])
    undefined: bool = Field(
        default=False,
        description="Whether the metric is undefined for the pruned model, as a correlation with scores that are all alike is: "
        "`pruned` is what counts then, 0 for a correlation.",
    )
    constant: float | None = Field(
        default=None, description="The metric of always giving the commonest answer, for tasks with classes."
    )
    interval_dense: IntervalReport | None = Field(default=None, description="Null in earlier reports, or where there is none.")
    interval_pruned: IntervalReport | None = None
    difference: DifferenceReport | None = Field(default=None, description="Paired: narrower than the two intervals suggest.")
    changed: ChangedReport | None = Field(default=None, description="For tasks with answers.")
    no_interval: str | None = Field(default=None, description="Why there is no interval, or what one leaves out.")
    precision: PrecisionReport | None = Field(
        default=None,
        description="For language models that are stored in bfloat16 or float16. Null: float32, without a choice; so earlier "
        "reports were measured, too.",
    )

    @property
    def worse(self) -> tuple[float, float] | None:
        """Ends of the interval of how much worse the pruned model is, whichever direction is better; None without one."""
        if self.difference is None:
            return None
        low, high = self.difference.low, self.difference.high
        return (low, high) if self.lower_is_better else (-high, -low)

    @property
    def dtype(self) -> str:
        """The data type that both models computed in."""
        return "float32" if self.precision is None else self.precision.dtype

    @property
    def label(self) -> str:
        """The metric's name, with its direction if less is better."""
        return f"{self.metric} (less is better)" if self.lower_is_better else self.metric

    @property
    def kept(self) -> float | None:
        """Share of the dense model's quality that was kept: pruned by dense, or dense by pruned if less is better."""
        part, whole = (self.dense, self.pruned) if self.lower_is_better else (self.pruned, self.dense)
        return part / whole if whole > 0 else None


class FloorReport(Frozen):
    """The quality floor: as requested, in the metric's own unit (``required``), and the quality achieved."""

    kind: Literal["relative", "absolute"]
    requested: float
    required: float
    achieved: float
    lower_is_better: bool = Field(default=False, description="Whether the floor is an upper bound.")
    confidence: float | None = Field(default=None, description="As requested; null: the achieved quality itself is judged.")
    bound: float | None = Field(
        default=None,
        description="With a confidence: the end of the interval that is judged, the lower one, or the upper one if less is "
        "better; null where there is no interval, and the floor is not held.",
    )
    selected_on: int | None = Field(
        default=None, description="Rows on which the search chose the checkpoint; the report's quality is of other rows."
    )
    judged: int | None = Field(default=None, description="Checkpoints of the search that were judged, this one included.")

    @property
    def held(self) -> bool:
        """Whether the floor is held: by the achieved quality, or by the bound where a confidence was requested."""
        judged = self.achieved if self.confidence is None else self.bound
        if judged is None:
            return False
        return judged <= self.required if self.lower_is_better else judged >= self.required
