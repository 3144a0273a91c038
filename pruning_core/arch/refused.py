"""What is refused by name, and why: models whose modules or files look like a known layout and that compute something else.

Torch-free: submit says it before any work. What is not listed here and still computes something else is refused by
`arch.verify` when the job begins; `tests/contract/test_model_types.py` walks all types that transformers has, and finds what
is missing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning_core.errors import UnsupportedArchitecture

SUPPORTED = (
    "encoders built like BERT, RoBERTa, XLM-R, CamemBERT, ELECTRA, DistilBERT, MPNet, DeBERTa-v2 or -v3, ModernBERT, ViT or "
    "DINOv2, decoders built like GPT-2, OPT, Llama, Mistral, Qwen2, Qwen3, Gemma or Granite, and T5, BART, Marian, mBART and "
    "Pegasus are supported"
)

_SPARSE = "its attention is not that of every token to every other"
_TWO_ATTENTIONS = "it subtracts one attention from another, so that a head is no unit of its own"
_REASONS = {
    "albert": "its layers share one set of weights, so that no layer can have units of its own; a BERT of the same size can",
    "deberta": "it fuses query, key and value with biases apart; DeBERTa-v2 and -v3 are supported",
    "openai-gpt": "its norms stand behind the sums, where GPT-2's stand before",
    "longformer": _SPARSE,
    "led": _SPARSE,
    "nystromformer": _SPARSE,
    "mra": _SPARSE,
    "yoso": _SPARSE,
    "diffllama": _TWO_ATTENTIONS,
    "lilt": "it reads where words stand on a page beside the words",
    "layoutlmv3": "it reads pictures and where words stand on a page beside the words",
}


def reason_against(config: Mapping[str, Any]) -> str | None:
    """Say why a model is refused, whatever its weights look like; None where nothing is known against it.

    Args:
        config: The checkpoint's.
    """
    reason = _REASONS.get(str(config.get("model_type")))
    if reason is not None:
        return reason
    if config.get("model_type") == "deberta-v2" and config.get("conv_kernel_size"):
        return "a convolution runs beside its first layer (DeBERTa-v2-xlarge); those without one are supported"
    return None


def unsupported(config: Mapping[str, Any]) -> UnsupportedArchitecture:
    """Make the error of a model that is refused, or whose blocks answer to no signature."""
    name = str(config.get("model_type", "unknown"))[:64]
    reason = reason_against(config) or "it has no block structure that Coppice can prune yet"
    return UnsupportedArchitecture(f"model type {name!r}: {reason}; {SUPPORTED}", param="model")
