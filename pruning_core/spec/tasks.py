"""The task types: the inputs of each, the class that loads its models, and its metrics. Torch-free.

A type's row holds everything that requests, forms and cards need to know of it. It also names the task family, in
`pruning_core.tasks`, that computes for the type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pruning_core.spec.labels import (
    AnswersLabel,
    ClassesLabel,
    ClassLabel,
    LabelKind,
    NumberLabel,
    TagsLabel,
    TextLabel,
)
from pruning_core.spec.metrics import METRICS, Metric
from pruning_core.spec.registered import OneOf

Reads = Literal["text", "words", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKind:
    """One type of task.

    Attributes:
        family: The task family, as ``module:name``; imported at its first use.
        loads_as: The transformers class that loads the models of this type.
        head: Endings of the names of model classes that have the task's head; where there are none, any model will do.
        outputs: How many outputs the head must have.
        pipeline: The Hub's name of the task.
        inputs: Contents of the input columns, one entry a column.
        optional: Whether the second of two input columns may be left out.
        reads: Inputs of a row: texts, words that are already split, or an image.
        pads: Whether samples differ in length, so that the tokenizer must be able to pad them.
        takes_chats: Whether an input may be a chat, which the tokenizer's template turns into a text.
        takes_prefix: Whether a prefix may be put before every text, as T5 needs it.
        one_graph: Whether the model is useful as a single ONNX graph. A decoder without its cache generates text in quadratic
            time.
        labels: The kind of label; None for types without labels.
        metrics: Metrics that the task may be judged by; the first is the default.
        findings: Findings that the family can compute for a metric: see `pruning_core.spec.metrics`.
        entity_metrics: Metrics that count entities; for them the names of the model's classes must mark entities (B-, I-).
    """

    family: str
    loads_as: str
    head: tuple[str, ...] = ()
    outputs: Literal["any", "one", "several"] = "any"
    pipeline: str
    inputs: tuple[str, ...]
    optional: bool = False
    reads: Reads = "text"
    pads: bool = True
    takes_chats: bool = False
    takes_prefix: bool = False
    one_graph: bool = True
    labels: LabelKind | None = None
    metrics: tuple[Metric, ...]
    findings: tuple[str, ...]
    entity_metrics: tuple[Metric, ...] = ()

    @property
    def has_loss(self) -> bool:
        """Whether a loss can be computed from labels; embeddings are at most judged by them."""
        return self.loads_as != "AutoModel"


_SENTENCES = ("a text", "its second text")
_CLASSIFIER = "ForSequenceClassification"
_SEQUENCES = ("ForConditionalGeneration", "MTModel")
_HERE = "pruning_core.tasks"

KINDS: Mapping[str, TaskKind] = {
    "text-classification": TaskKind(
        family=f"{_HERE}.classification:Classification",
        loads_as=f"AutoModel{_CLASSIFIER}",
        head=(_CLASSIFIER,),
        outputs="several",
        pipeline="text-classification",
        inputs=_SENTENCES,
        optional=True,
        labels=ClassLabel(),
        metrics=("accuracy", "f1", "matthews"),
        findings=("classes",),
    ),
    "multi-label-classification": TaskKind(
        family=f"{_HERE}.classification:MultiLabel",
        loads_as=f"AutoModel{_CLASSIFIER}",
        head=(_CLASSIFIER,),
        pipeline="text-classification",
        inputs=_SENTENCES,
        optional=True,
        labels=ClassesLabel(),
        metrics=("f1", "accuracy"),
        findings=("decisions",),
    ),
    "regression": TaskKind(
        family=f"{_HERE}.classification:Regression",
        loads_as=f"AutoModel{_CLASSIFIER}",
        head=(_CLASSIFIER,),
        outputs="one",
        pipeline="text-classification",
        inputs=_SENTENCES,
        optional=True,
        labels=NumberLabel(),
        metrics=("spearman",),
        findings=("scores",),
    ),
    "feature-extraction": TaskKind(
        family=f"{_HERE}.embedding:Embedding",
        loads_as="AutoModel",
        pipeline="feature-extraction",
        inputs=_SENTENCES,
        optional=True,
        metrics=("cosine",),
        findings=("embeddings",),
    ),
    "sentence-similarity": TaskKind(
        family=f"{_HERE}.embedding:Similarity",
        loads_as="AutoModel",
        pipeline="sentence-similarity",
        inputs=_SENTENCES,
        labels=NumberLabel(),
        metrics=("spearman",),
        findings=("scores",),
    ),
    "token-classification": TaskKind(
        family=f"{_HERE}.tokens:TokenClassification",
        loads_as="AutoModelForTokenClassification",
        head=("ForTokenClassification",),
        outputs="several",
        pipeline="token-classification",
        inputs=("lists of words",),
        reads="words",
        labels=TagsLabel(),
        metrics=("f1", "accuracy"),
        findings=("tags",),
        entity_metrics=("f1",),
    ),
    "question-answering": TaskKind(
        family=f"{_HERE}.answers:QuestionAnswering",
        loads_as="AutoModelForQuestionAnswering",
        head=("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
        pipeline="question-answering",
        inputs=("a question", "its context"),
        labels=AnswersLabel(),
        metrics=("f1", "exact_match"),
        findings=("replies",),
    ),
    "fill-mask": TaskKind(
        family=f"{_HERE}.language:FillMask",
        loads_as="AutoModelForMaskedLM",
        head=("ForMaskedLM", "ForPreTraining", "WithLMHeadModel"),
        pipeline="fill-mask",
        inputs=("a text",),
        metrics=("accuracy", "loss"),
        findings=("tokens",),
    ),
    "text-generation": TaskKind(
        family=f"{_HERE}.language:TextGeneration",
        loads_as="AutoModelForCausalLM",
        head=("ForCausalLM", "LMHeadModel", "DoubleHeadsModel"),
        pipeline="text-generation",
        inputs=("a text",),
        takes_chats=True,
        pads=False,
        metrics=("perplexity", "accuracy", "loss"),
        findings=("tokens",),
    ),
    "summarization": TaskKind(
        family=f"{_HERE}.sequences:SequenceToSequence",
        loads_as="AutoModelForSeq2SeqLM",
        head=_SEQUENCES,
        pipeline="summarization",
        inputs=("a text",),
        takes_prefix=True,
        one_graph=False,
        labels=TextLabel(),
        metrics=("rougeL", "rouge1", "rouge2", "loss"),
        findings=("losses", "texts"),
    ),
    "translation": TaskKind(
        family=f"{_HERE}.sequences:SequenceToSequence",
        loads_as="AutoModelForSeq2SeqLM",
        head=_SEQUENCES,
        pipeline="translation",
        inputs=("a text",),
        takes_prefix=True,
        one_graph=False,
        labels=TextLabel(),
        metrics=("bleu", "loss"),
        findings=("losses", "texts"),
    ),
    "image-classification": TaskKind(
        family=f"{_HERE}.images:ImageClassification",
        loads_as="AutoModelForImageClassification",
        head=("ForImageClassification",),
        outputs="several",
        pipeline="image-classification",
        inputs=("an image",),
        reads="image",
        labels=ClassLabel(),
        metrics=("accuracy", "f1"),
        findings=("classes",),
    ),
}

TaskType = Annotated[str, OneOf(KINDS)]


def finding_of(task_type: TaskType, metric: Metric) -> str:
    """Return the finding that a metric compares: the task's first finding that the metric can be computed from."""
    return next(name for name in KINDS[task_type].findings if name in METRICS[metric].computed)


def misfit(task_type: TaskType, model_class: str) -> str | None:
    """Return the class that should load a model, where the name of the model's class shows that it has another task's head.

    Args:
        task_type: The requested task type.
        model_class: Class that the model's config names, such as BertForMaskedLM.

    Returns:
        The loading class; None where the model fits the task, or its class is unknown.
    """
    own = KINDS[task_type]
    if not own.head or model_class.endswith(own.head):
        return None
    heads = {head: kind.loads_as for kind in KINDS.values() for head in kind.head}
    return next((loads_as for head, loads_as in heads.items() if model_class.endswith(head)), None)
