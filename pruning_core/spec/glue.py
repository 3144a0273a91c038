"""The GLUE tasks on the Hub: their columns, task types and metrics. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GLUE_DATASET = "nyu-mll/glue"


@dataclass(frozen=True, slots=True)
class GlueTask:
    """One task of GLUE (Wang et al. 2018, table 1). For MNLI, the matched validation split is used."""

    name: str
    text: tuple[str, ...]
    type: str
    metric: str
    validation_split: str = "validation"

    def as_task(self) -> dict[str, Any]:
        """Return the fields of a `TaskSpec`, before validation."""
        return {
            "name": f"glue/{self.name}",
            "type": self.type,
            "dataset": GLUE_DATASET,
            "config": self.name,
            "validation_split": self.validation_split,
            "columns": {"text": self.text, "label": "label"},
            "metric": self.metric,
        }


_PAIR = ("sentence1", "sentence2")
_TASKS = (
    GlueTask("cola", ("sentence",), "text-classification", "matthews"),
    GlueTask("mnli", ("premise", "hypothesis"), "text-classification", "accuracy", "validation_matched"),
    GlueTask("mrpc", _PAIR, "text-classification", "f1"),
    GlueTask("qnli", ("question", "sentence"), "text-classification", "accuracy"),
    GlueTask("qqp", ("question1", "question2"), "text-classification", "f1"),
    GlueTask("rte", _PAIR, "text-classification", "accuracy"),
    GlueTask("sst2", ("sentence",), "text-classification", "accuracy"),
    GlueTask("stsb", _PAIR, "regression", "spearman"),
    GlueTask("wnli", _PAIR, "text-classification", "accuracy"),
)

GLUE_TASKS: Mapping[str, GlueTask] = {f"glue/{task.name}": task for task in _TASKS}
