"""The quality metrics: what each can be, which way is better, and which function computes it. Torch-free.

A row is all that a metric is: the spec's names and schemas, floors and reports read it from here. A task offers a metric by
naming it in its own row (`pruning_core.spec.tasks`), and what it compares must be among the keys of ``computed``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pruning_core.spec.registered import OneOf


@dataclass(frozen=True, slots=True)
class QualityMetric:
    """One way to judge a model on the validation split. Its unit is that of its range: a share or a correlation as a rule.

    Attributes:
        computed: The function that computes it, as ``module:name``, for each kind of finding that it can be computed of.
            `pruning_core.tasks.scoring` has the findings. The function is imported when it is first asked for.
        least: The smallest value that it can take.
        most: The largest.
        lower_is_better: Whether less of it is better.
    """

    computed: Mapping[str, str]
    least: float = -1.0
    most: float = 1.0
    lower_is_better: bool = False


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
    "spearman": QualityMetric({"scores": f"{_HERE}:spearman"}),
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
