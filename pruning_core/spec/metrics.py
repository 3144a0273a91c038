"""The quality metrics: their range, their direction, and the functions that compute them. Torch-free.

The row of a metric is its whole definition: the spec's names and schemas, floors and reports read it. A task offers a metric by
naming it in its own row (`pruning_core.spec.tasks`). One of the task's findings must then be a key of ``computed``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

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
        undefined: What counts for a pruned model on whose outputs the metric is no number, as a correlation with scores that
            are all alike is none; None where the metric is always one.
    """

    computed: Mapping[str, str]
    least: float = -1.0
    most: float = 1.0
    lower_is_better: bool = False
    undefined: float | None = None


_HERE = "pruning_core.tasks.scoring"

METRICS: Mapping[str, QualityMetric] = {
    "accuracy": QualityMetric(
        {
            "classes": f"{_HERE}:class_accuracy",
            "decisions": f"{_HERE}:rows_wholly_right",
            "tags": f"{_HERE}:tag_accuracy",
            "tokens": f"{_HERE}:token_accuracy",
        }
    ),
    "f1": QualityMetric(
        {
            "classes": f"{_HERE}:class_f1",
            "decisions": f"{_HERE}:decision_f1",
            "tags": f"{_HERE}:entity_f1",
            "replies": f"{_HERE}:word_f1",
        }
    ),
    "matthews": QualityMetric({"classes": f"{_HERE}:matthews"}),
    "spearman": QualityMetric({"scores": f"{_HERE}:spearman"}, undefined=0.0),
    "cosine": QualityMetric({"embeddings": f"{_HERE}:cosine"}),
    "exact_match": QualityMetric({"replies": f"{_HERE}:exact_match"}),
    "perplexity": QualityMetric({"tokens": f"{_HERE}:perplexity"}, least=1, most=math.inf, lower_is_better=True),
    "loss": QualityMetric(
        {"tokens": f"{_HERE}:token_loss", "losses": f"{_HERE}:token_loss"}, least=0, most=math.inf, lower_is_better=True
    ),
    "rouge1": QualityMetric({"texts": f"{_HERE}:rouge1"}),
    "rouge2": QualityMetric({"texts": f"{_HERE}:rouge2"}),
    "rougeL": QualityMetric({"texts": f"{_HERE}:rouge_l"}),
    "bleu": QualityMetric({"texts": f"{_HERE}:bleu"}, least=0, most=100),
}

Metric = Annotated[str, OneOf(METRICS)]
