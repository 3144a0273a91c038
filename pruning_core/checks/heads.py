"""Checks of model types and heads against task types. Torch-free.

A model type is the ``model_type`` of a configuration. For types that are not listed, the job asks transformers. A test compares
the list with transformers' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pruning_core.errors import ModelUnreadable, UnsupportedArchitecture
from pruning_core.files.checkpoint import stated_classes
from pruning_core.spec.tasks import KINDS, TaskType

_SEQUENCE = "AutoModelForSequenceClassification"
_TOKENS = "AutoModelForTokenClassification"
_QUESTION = "AutoModelForQuestionAnswering"
_MASKED = "AutoModelForMaskedLM"
_CAUSAL = "AutoModelForCausalLM"
_BOTH = "AutoModelForSeq2SeqLM"
_IMAGE = "AutoModelForImageClassification"
_BARE = "AutoModel"

_ENCODER = frozenset({_SEQUENCE, _TOKENS, _QUESTION, _MASKED, _BARE})
_DECODER = frozenset({_SEQUENCE, _TOKENS, _QUESTION, _CAUSAL, _BARE})
_BERTS = (
    "albert",
    *("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "deberta", "deberta-v2", "modernbert"),
    *("ernie", "megatron-bert", "xlm-roberta-xl", "roberta-prelayernorm"),
)
_WRITERS = ("bart", "mbart", "marian", "pegasus", "m2m_100", "blenderbot", "blenderbot-small")
_PICTURES = ("vit", "deit", "dinov2", "dinov2_with_registers", "ijepa", "vit_msn")

# For each model type the transformers classes that load it, out of those that some task type uses.
LOADED_BY: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_BERTS, _ENCODER),
    **dict.fromkeys(("gpt2", "llama", "mistral", "qwen2", "qwen3", "gpt_neox", "falcon"), _DECODER),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe"), _DECODER),
    "gpt_oss": _DECODER - {_QUESTION},
    **dict.fromkeys(("gemma", "gemma2"), _DECODER - {_QUESTION}),
    **dict.fromkeys(("opt", "gptj"), _DECODER - {_TOKENS}),
    **dict.fromkeys(("gemma3_text", "olmo", "olmo2"), _DECODER - {_TOKENS, _QUESTION}),
    **dict.fromkeys(("stablelm", "phi", "phi3"), _DECODER - {_QUESTION}),
    **dict.fromkeys(("granite", "granitemoe", "olmoe", "cohere", "cohere2"), frozenset({_CAUSAL, _BARE})),
    **dict.fromkeys(("t5", "mt5"), frozenset({_SEQUENCE, _TOKENS, _QUESTION, _BOTH})),
    **dict.fromkeys(("bart", "mbart"), frozenset({_SEQUENCE, _QUESTION, _BOTH})),
    **dict.fromkeys(_WRITERS[2:], frozenset({_BOTH})),
    **dict.fromkeys(_PICTURES, frozenset({_IMAGE})),
}
# Pairs of model type and class that transformers has, but that are of no use for the task; with the reason.
NOT_DONE: Mapping[tuple[str, str], str] = {
    **dict.fromkeys(
        ((own, _CAUSAL) for own in _BERTS), "it sees every token of a text at once, so it cannot predict the next one"
    ),
    **dict.fromkeys(
        ((own, _BARE) for own in ("t5", "mt5", *_WRITERS)),
        "its decoder generates text, and gives no embedding",
    ),
    **dict.fromkeys(((own, _CAUSAL) for own in _WRITERS), "its decoder would generate without the encoder's input"),
    **dict.fromkeys(
        ((own, _MASKED) for own in ("bart", "mbart")),
        "it was trained to rewrite whole texts, not to fill single masked tokens",
    ),
    **dict.fromkeys(((own, _BARE) for own in _PICTURES), "it reads images"),
}


@dataclass(frozen=True, slots=True)
class _Tensors:
    """Names of a head's tensors in checkpoints.

    Attributes:
        last: Names of the head's last matrix in the various families.
        starts: Prefixes of the head's tensors, for heads whose last matrix may be tied to the embeddings. One must occur.
        row_a_class: Whether the last matrix has one row for each class of the configuration.
    """

    last: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    row_a_class: bool = True


_TENSORS: Mapping[str, _Tensors] = {
    _SEQUENCE: _Tensors(
        ("classifier.weight", "classifier.out_proj.weight", "score.weight", "classification_head.out_proj.weight")
    ),
    _TOKENS: _Tensors(("classifier.weight", "score.weight")),
    _QUESTION: _Tensors(("qa_outputs.weight", "classifier.weight"), row_a_class=False),
    _IMAGE: _Tensors(("classifier.weight", "cls_classifier.weight")),
    _MASKED: _Tensors(
        starts=(
            "cls.predictions.",
            "lm_head.",
            "predictions.",
            "vocab_transform.",
            "generator_predictions.",
            "head.",
            "lm_predictions.",
        )
    ),
}


def check_type(task_type: TaskType, config: Mapping[str, Any]) -> None:
    """Check a checkpoint's model type against the task type.

    Raises:
        UnsupportedArchitecture: No model of this type can do the task.
    """
    model_type: object = config.get("model_type")
    if KINDS[task_type].reads != "image" and model_type not in LOADED_BY and not isinstance(config.get("vocab_size"), int):
        raise UnsupportedArchitecture(
            f"model type {str(model_type)[:64]!r} cannot do {task_type}: its config names no vocabulary (vocab_size), and "
            "so it reads no text; give a model that does",
            param="task.type",
        )
    if not isinstance(model_type, str) or model_type not in LOADED_BY or KINDS[task_type].loads_as in LOADED_BY[model_type]:
        return
    why = NOT_DONE.get((model_type, KINDS[task_type].loads_as), "there is no such head for it in transformers")
    others = ", ".join(name for name, kind in KINDS.items() if kind.loads_as in LOADED_BY[model_type])
    raise UnsupportedArchitecture(
        f"model type {model_type!r} cannot do {task_type}: {why}; it can do {others}", param="task.type"
    )


def check_head_weights(task_type: TaskType, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a checkpoint has the weights of the task's head, and one row for each class of the configuration.

    Of the heads of masked language models, which may be tied to the embeddings, only a tensor's prefix is checked. Heads
    without an entry in ``_TENSORS``, and model types that are not listed, are left to the job.

    Raises:
        ModelUnreadable: Weights are missing, or the number of rows is not the number of classes.
    """
    head = _TENSORS.get(KINDS[task_type].loads_as)
    if head is None or config.get("model_type") not in LOADED_BY:
        return
    if head.starts and not any(name.startswith(head.starts) for name in shapes):
        raise lacks_weights(task_type, " or ".join(f"{start}*" for start in head.starts[:2]))
    if not head.last:
        return
    last = next((name for name in head.last if name in shapes), None)
    if last is None:
        raise lacks_weights(task_type, " or ".join(head.last[:2]))
    said = stated_classes(config)
    if head.row_a_class and said is not None and said != shapes[last][0]:
        raise ModelUnreadable(
            f"config.json says {said} classes, and {last} has {shapes[last][0]} rows; the two belong to different models",
            param="model",
        )


def lacks_weights(task_type: TaskType, shown: str) -> ModelUnreadable:
    """Make the error for a checkpoint that lacks the task's head.

    Args:
        task_type: The task type.
        shown: Names of some of the missing tensors.
    """
    return ModelUnreadable(
        f"the checkpoint lacks weights that a {task_type} model needs ({shown}); give a model fine-tuned for the task",
        param="model",
    )
