"""The quality metrics: their range, their direction, and the functions that compute them. Torch-free.

The row of a metric is its whole definition: the spec's names and schemas, floors and reports read it. A task offers a metric by
naming it in its own row (`pruning_core.spec.tasks`). One of the task's findings must then be a key of ``computed``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypedDict

from pruning_core.spec.registered import OneOf


@dataclass(frozen=True, slots=True)
class QualityMetric:
    """A metric of a model on the validation split: as a rule a share or a correlation.

    Attributes:
        computed: The function, as ``module:name``, for each kind of finding that the metric can be computed from. The findings
            are in `pruning_core.tasks.scoring`. The function is imported at its first use.
        least: Smallest possible value.
        most: Largest possible value.
        lower_is_better: Whether a smaller value is better.
        by_rows: The function, for each kind of finding, that gives what the metric needs of each row, so that rows can be drawn
            again (`pruning_core.tasks.row_sums`). Without one the metric has no interval, and the report says so.
        undefined: What counts for a pruned model on whose outputs the metric is no number, as a correlation with scores that
            are all alike is none; None where the metric is always one.
    """

    computed: Mapping[str, str]
    by_rows: Mapping[str, str] = field(default_factory=dict[str, str], kw_only=True)
    least: float = -1.0
    most: float = 1.0
    lower_is_better: bool = False
    undefined: float | None = None


class _Functions(TypedDict):
    computed: Mapping[str, str]
    by_rows: Mapping[str, str]


def _both(**names: str) -> _Functions:
    """Name the functions of a metric by finding: those that compute it, and those of the same names that give its rows."""
    return {
        "computed": {finding: f"pruning_core.tasks.scoring:{name}" for finding, name in names.items()},
        "by_rows": {finding: f"pruning_core.tasks.row_sums:{name}" for finding, name in names.items()},
    }


METRICS: Mapping[str, QualityMetric] = {
    "accuracy": QualityMetric(
        **_both(classes="class_accuracy", decisions="rows_wholly_right", tags="tag_accuracy", tokens="token_accuracy")
    ),
    "f1": QualityMetric(**_both(classes="class_f1", decisions="decision_f1", tags="entity_f1", replies="word_f1")),
    "matthews": QualityMetric(**_both(classes="matthews")),
    "spearman": QualityMetric(**_both(scores="spearman"), undefined=0.0),
    "cosine": QualityMetric(**_both(embeddings="cosine")),
    "exact_match": QualityMetric(**_both(replies="exact_match")),
    "perplexity": QualityMetric(**_both(tokens="perplexity"), least=1, most=math.inf, lower_is_better=True),
    "loss": QualityMetric(**_both(tokens="token_loss", losses="token_loss"), least=0, most=math.inf, lower_is_better=True),
    "rouge1": QualityMetric(**_both(texts="rouge1")),
    "rouge2": QualityMetric(**_both(texts="rouge2")),
    "rougeL": QualityMetric(**_both(texts="rouge_l")),
    "bleu": QualityMetric(**_both(texts="bleu"), least=0, most=100),
}

Metric = Annotated[str, OneOf(METRICS)]
