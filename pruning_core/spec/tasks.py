"""The types of tasks: what each reads, what loads its models and what it is measured by. Torch-free.

What a type computes is `pruning_core.tasks.registry`'s; this is what a request, a form or a card must know of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TaskType = Literal[
    "text-classification",
    "multi-label-classification",
    "regression",
    "feature-extraction",
    "sentence-similarity",
    "token-classification",
    "question-answering",
    "fill-mask",
    "text-generation",
    "summarization",
    "translation",
    "image-classification",
]
Metric = Literal[
    "accuracy",
    "f1",
    "matthews",
    "spearman",
    "cosine",
    "exact_match",
    "perplexity",
    "loss",
    "rouge1",
    "rouge2",
    "rougeL",
    "bleu",
]

# Metrics of which less is better, and the range of those that are no share or correlation (which are within -1 and 1).
LOWER_IS_BETTER: frozenset[str] = frozenset({"perplexity", "loss"})
RANGES: Mapping[str, tuple[float, float]] = {"perplexity": (1, float("inf")), "loss": (0, float("inf")), "bleu": (0, 100)}

Reads = Literal["text", "words", "image"]
LabelKind = Literal["class", "classes", "number", "tags", "answers", "text"]

# What a column of labels holds, as messages say it.
LABEL_WORDS: Mapping[LabelKind, str] = {
    "class": "class indices",
    "classes": "lists of class indices or names",
    "number": "numbers (scores)",
    "tags": "lists of class indices or names, one a word",
    "answers": "objects {text: [...], answer_start: [...]}, as SQuAD has them",
    "text": "text",
}


@dataclass(frozen=True, slots=True)
class TaskKind:
    """One type of task.

    Attributes:
        loads_as: The transformers class that loads its models.
        head: Ends of the names of model classes that have its head; any model will do where there is none.
        metrics: What it may be measured by; the first is the usual one.
        pipeline: The Hub's name of the task.
        inputs: What the input columns hold, one entry a column; the second may be left out where ``optional``.
        optional: Whether one input column is enough where two are listed.
        label: What the column of labels holds; None where there is none.
        reads: What a row's inputs are: text, words that are split already, or an image.
    """

    loads_as: str
    head: tuple[str, ...]
    metrics: tuple[Metric, ...]
    pipeline: str
    inputs: tuple[str, ...]
    label: LabelKind | None
    optional: bool = False
    reads: Reads = "text"

    @property
    def has_loss(self) -> bool:
        """Whether labels make a loss; embeddings are judged by them at most."""
        return self.loads_as != "AutoModel"


_SENTENCES = ("a text", "its second text")
_CLASSIFIER = "ForSequenceClassification"
_SEQUENCES = ("ForConditionalGeneration", "MTModel")

KINDS: Mapping[TaskType, TaskKind] = {
    "text-classification": TaskKind(
        f"AutoModel{_CLASSIFIER}",
        (_CLASSIFIER,),
        ("accuracy", "f1", "matthews"),
        "text-classification",
        _SENTENCES,
        "class",
        optional=True,
    ),
    "multi-label-classification": TaskKind(
        f"AutoModel{_CLASSIFIER}",
        (_CLASSIFIER,),
        ("f1", "accuracy"),
        "text-classification",
        _SENTENCES,
        "classes",
        optional=True,
    ),
    "regression": TaskKind(
        f"AutoModel{_CLASSIFIER}", (_CLASSIFIER,), ("spearman",), "text-classification", _SENTENCES, "number", optional=True
    ),
    "feature-extraction": TaskKind("AutoModel", (), ("cosine",), "feature-extraction", _SENTENCES, None, optional=True),
    "sentence-similarity": TaskKind("AutoModel", (), ("spearman",), "sentence-similarity", _SENTENCES, "number"),
    "token-classification": TaskKind(
        "AutoModelForTokenClassification",
        ("ForTokenClassification",),
        ("f1", "accuracy"),
        "token-classification",
        ("lists of words",),
        "tags",
        reads="words",
    ),
    "question-answering": TaskKind(
        "AutoModelForQuestionAnswering",
        ("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
        ("f1", "exact_match"),
        "question-answering",
        ("a question", "its context"),
        "answers",
    ),
    "fill-mask": TaskKind(
        "AutoModelForMaskedLM",
        ("ForMaskedLM", "ForPreTraining", "WithLMHeadModel"),
        ("accuracy", "loss"),
        "fill-mask",
        ("a text",),
        None,
    ),
    "text-generation": TaskKind(
        "AutoModelForCausalLM",
        ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel"),
        ("perplexity", "accuracy", "loss"),
        "text-generation",
        ("a text",),
        None,
    ),
    "summarization": TaskKind(
        "AutoModelForSeq2SeqLM", _SEQUENCES, ("rougeL", "rouge1", "rouge2", "loss"), "summarization", ("a text",), "text"
    ),
    "translation": TaskKind("AutoModelForSeq2SeqLM", _SEQUENCES, ("bleu", "loss"), "translation", ("a text",), "text"),
    "image-classification": TaskKind(
        "AutoModelForImageClassification",
        ("ForImageClassification",),
        ("accuracy", "f1"),
        "image-classification",
        ("an image",),
        "class",
        reads="image",
    ),
}

_KNOWN_HEADS = {head: kind for kind in KINDS.values() for head in kind.head}


def misfit(task_type: TaskType, model_class: str) -> str | None:
    """Give the class that a model should have been loaded by, where the name of its own says that it has another task's head.

    Args:
        task_type: The task asked for.
        model_class: What the model's config names, such as BertForMaskedLM.
    """
    own = KINDS[task_type]
    if not own.head or model_class.endswith(own.head):
        return None
    return next((kind.loads_as for head, kind in _KNOWN_HEADS.items() if model_class.endswith(head)), None)
