"""Which family computes for which type of task."""

from __future__ import annotations

from collections.abc import Mapping

from pruning_core.spec.prune import TaskType
from pruning_core.tasks.answers import QuestionAnswering
from pruning_core.tasks.base import TaskFamily
from pruning_core.tasks.classification import Classification, MultiLabel, Regression
from pruning_core.tasks.embedding import Embedding, Similarity
from pruning_core.tasks.images import ImageClassification
from pruning_core.tasks.language import FillMask, TextGeneration
from pruning_core.tasks.sequences import SequenceToSequence
from pruning_core.tasks.tokens import TokenClassification

_FAMILIES: Mapping[TaskType, TaskFamily] = {
    "text-classification": Classification(),
    "multi-label-classification": MultiLabel(),
    "regression": Regression(),
    "feature-extraction": Embedding(),
    "sentence-similarity": Similarity(),
    "token-classification": TokenClassification(),
    "question-answering": QuestionAnswering(),
    "fill-mask": FillMask(),
    "text-generation": TextGeneration(),
    "summarization": SequenceToSequence(),
    "translation": SequenceToSequence(),
    "image-classification": ImageClassification(),
}


def family_of(task_type: TaskType) -> TaskFamily:
    """Give the family of a type."""
    return _FAMILIES[task_type]
