"""Which kinds of models can do which tasks. Torch-free.

A model type is what ``model_type`` says in a configuration. Types that are not listed are left to transformers, which the job
asks; a test compares the list with transformers' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning_core.errors import UnsupportedArchitecture
from pruning_core.tasks.kinds import KINDS, TaskType

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
_BERTS = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "deberta-v2", "modernbert")
_MORE_BERTS = ("ernie", "megatron-bert", "xlm-roberta-xl", "roberta-prelayernorm")

_WRITERS = ("bart", "mbart", "marian", "pegasus", "m2m_100")
_PICTURES = ("vit", "deit", "dinov2")

# The classes that load the models of a type, of those that a task can be done with.
LOADED_BY: Mapping[str, frozenset[str]] = {
    **dict.fromkeys((*_BERTS, *_MORE_BERTS), _ENCODER),
    **dict.fromkeys(("gpt2", "llama", "mistral", "qwen2", "qwen3"), _DECODER),
    **dict.fromkeys(("gemma", "gemma2"), _DECODER - {_QUESTION}),
    "opt": _DECODER - {_TOKENS},
    **dict.fromkeys(("gemma3_text", "olmo"), _DECODER - {_TOKENS, _QUESTION}),
    "stablelm": _DECODER - {_QUESTION},
    "granite": frozenset({_CAUSAL, _BARE}),
    **dict.fromkeys(("t5", "mt5"), frozenset({_SEQUENCE, _TOKENS, _QUESTION, _BOTH})),
    **dict.fromkeys(("bart", "mbart"), frozenset({_SEQUENCE, _QUESTION, _BOTH})),
    **dict.fromkeys(("marian", "pegasus", "m2m_100"), frozenset({_BOTH})),
    **dict.fromkeys(_PICTURES, frozenset({_IMAGE})),
}
# What transformers has a class for and no task can be done with.
NOT_DONE: Mapping[tuple[str, str], str] = {
    **dict.fromkeys(
        ((own, _CAUSAL) for own in (*_BERTS, *_MORE_BERTS)), "it reads a text from both ends, and the next token is one of them"
    ),
    **dict.fromkeys(
        ((own, _BARE) for own in ("t5", "mt5", *_WRITERS)),
        "its decoder waits for a text to write, and gives no embedding of one",
    ),
    **dict.fromkeys(((own, _CAUSAL) for own in _WRITERS), "its decoder alone would write, without what the encoder has read"),
    **dict.fromkeys(
        ((own, _MASKED) for own in ("bart", "mbart")),
        "what it learnt is to write a text anew; masks of single tokens are not what it fills",
    ),
    **dict.fromkeys(((own, _BARE) for own in _PICTURES), "it reads images"),
}


def check_type(task_type: TaskType, config: Mapping[str, Any]) -> None:
    """Check what a checkpoint calls its type against the task.

    Raises:
        UnsupportedArchitecture: No model of the type can do the task.
    """
    model_type: object = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in LOADED_BY or KINDS[task_type].loads_as in LOADED_BY[model_type]:
        return
    why = NOT_DONE.get((model_type, KINDS[task_type].loads_as), "there is no such head for it in transformers")
    others = ", ".join(name for name, kind in KINDS.items() if kind.loads_as in LOADED_BY[model_type])
    raise UnsupportedArchitecture(
        f"model type {model_type!r} cannot do {task_type}: {why}; it can do {others}", param="task.type"
    )
