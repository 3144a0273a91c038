"""Model types refused by name, each with its reason: they look like a known layout and compute something else.

Torch-free, so that submit can refuse them before any work. A type that computes something else and is not listed here is
refused by `arch.verify` when the job begins. `tests/contract/test_model_types.py` walks all model types of transformers, and
so finds the types that are missing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning_core.errors import UnsupportedArchitecture

SUPPORTED = (
    "models built like BERT, ALBERT, RoBERTa, DistilBERT, MPNet, DeBERTa, ModernBERT, ViT, DINOv2, GPT-2, GPT-J, GPT-NeoX, "
    "OPT, Llama, Gemma, Phi, Falcon, OLMo, Cohere, Mixtral, T5 or BART are supported (GET /v1/architectures lists all that are "
    "tried)"
)

_SPARSE = "its attention is not that of every token to every other"
_ROTARY = "its queries and keys are turned by positions inside modules that look like BERT's"
_SLOPES = "its positions bias attention by a slope for each head (ALiBi), which is made for all heads of the model at once"
_SEEN = "it reads more of a page than its words"
_PICTURES = "it reads no texts, and it reads pictures in another way than a ViT"
_REASONS = {
    "bloom": _SLOPES,
    "gpt_neox_japanese": "its last layer has a bias that the others lack; GPT-NeoX is supported",
    "umt5": "each of its layers makes position biases of its own; T5 and mT5 are supported",
    "openai-gpt": "its norms stand behind the sums, where GPT-2's stand before",
    "ibert": "its matrices are quantised while it runs",
    "bitnet": "its matrices are quantised while it runs, with norms over all units at once",
    "xmod": "its layers hold an adapter for each language",
    "mvp": "it reads prompts beside the text in every layer; BART is supported",
    "beit": "its layers scale and place patches in ways of their own; ViT, DeiT and DINOv2 are supported",
    "data2vec-vision": "its layers scale and place patches in ways of their own; ViT, DeiT and DINOv2 are supported",
    "fsmt": "its layers lay sequences out along the first axis; Marian, BART and mBART are supported",
    "doge": "its attention makes masks of the values of all heads at once",
    "diffllama": "it subtracts one half of its heads' attention from the other's",
    "hyperclovax": "it may have norms on what its sublayers add, where Llama has none",
    "beam": "it scales each residual sum by the depth of its layer",
    "decision_transformer": "it reads states, actions and returns, no texts",
    **dict.fromkeys(("longformer", "led", "nystromformer", "mra", "yoso", "pegasus_x", "bigbird_pegasus"), _SPARSE),
    **dict.fromkeys(("roformer", "esmc"), _ROTARY),
    **dict.fromkeys(("whisper", "speech_to_text", "sew-d", "voxtral_encoder"), "it reads sound; there is no task for that yet"),
    **dict.fromkeys(
        ("qwen2_vl_text", "qwen2_5_vl_text", "muse_glimmer_text"), "it is a part of a model that reads more than text"
    ),
    **dict.fromkeys(("lilt", "layoutlmv3", "bros", "udop", "vilt"), _SEEN),
    **dict.fromkeys(("imagegpt", "dpt", "audio-spectrogram-transformer", "audioflamingo3_encoder"), _PICTURES),
    **dict.fromkeys(("granite_swa", "flint"), "its attention has a sink for each head, which cannot be cut with it"),
    **dict.fromkeys(
        ("gemma4_text", "gemma4_unified_text", "embedding_gemma2_text"),
        "its layers have heads of different widths; Gemma 1 to 3 are supported",
    ),
}

_NORMS_OF_HEADS = "its queries and keys have norms with weights for each head, which are not cut with it"
# Entries of configurations by which models of a type that is supported compute something else, with the reason.
_OPTIONS = (
    ("deberta", "talking_head", "its heads are mixed with each other (talking_head), so that none can go alone"),
    (
        "falcon",
        "alibi",
        _SLOPES,
    ),
    ("cohere", "use_qk_norm", _NORMS_OF_HEADS),
    ("stablelm", "qk_layernorm", _NORMS_OF_HEADS),
)
# How many blocks an ALBERT has: in groups that take turns, and in each.
_GROUPS = ("num_hidden_groups", "inner_group_num")


def reason_against(config: Mapping[str, Any]) -> str | None:
    """Return why a model type is refused whatever its weights look like, or None where nothing is known against it.

    Args:
        config: Configuration of the checkpoint.
    """
    reason = _REASONS.get(str(config.get("model_type")))
    if reason is not None:
        return reason
    for model_type, key, why in _OPTIONS:
        if config.get("model_type") == model_type and config.get(key):
            return why
    if config.get("model_type") == "albert" and any(config.get(name) not in (None, 1) for name in _GROUPS):
        return "its layers share several blocks; those that share one are supported"
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        return "some of its layers have a plain FFN and some a mixture of experts; mixtures in all layers are supported"
    return None


def unsupported(config: Mapping[str, Any]) -> UnsupportedArchitecture:
    """Return the error for a model that is refused by name, or whose blocks match no signature."""
    name = str(config.get("model_type", "unknown"))[:64]
    reason = reason_against(config) or "it has no block structure that Coppice can prune yet"
    return UnsupportedArchitecture(f"model type {name!r}: {reason}; {SUPPORTED}", param="model")
