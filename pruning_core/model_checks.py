"""Whether the weights of a checkpoint are what its configuration says, and of which type they are. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning_core.arch.stored import LAYERS
from pruning_core.errors import ModelUnreadable

_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float32"}
_QUANTISED = frozenset({"I8", "U8", "F8_E4M3", "F8_E5M2", "F4", "I4"})
# A checkpoint keeps a few small tables in odd types; its weights are the rest.
_FEW = 0.01
_EMBEDDINGS = ("word_embeddings.weight", "embed_tokens.weight", "wte.weight", "tok_embeddings.weight")


def check_weights(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], blocks: int) -> None:
    """Compare what a configuration says with the tensors beside it.

    Where it says fewer layers than there are, transformers would leave the others out without a word.

    Args:
        config: The checkpoint's.
        shapes: Of its tensors.
        blocks: Found among them.

    Raises:
        ModelUnreadable: They differ.
    """
    said = next((config[key] for key in LAYERS if isinstance(config.get(key), int)), None)
    # Encoder-decoders count their halves apart, under names of their own.
    if said is not None and said != blocks and not config.get("is_encoder_decoder"):
        raise ModelUnreadable(
            f"config.json says {said} layers, and the weights have {blocks}; the two belong to different models", param="model"
        )
    vocabulary = config.get("vocab_size")
    for name, shape in shapes.items():
        if name.endswith(_EMBEDDINGS) and isinstance(vocabulary, int) and shape[0] != vocabulary:
            raise ModelUnreadable(
                f"config.json says a vocabulary of {vocabulary}, and {name} has {shape[0]} rows; the two belong to different "
                "models",
                param="model",
            )


def check_types(values: Mapping[str, int]) -> None:
    """Refuse quantised weights: what they stand for is known to the library that packed them alone.

    Args:
        values: Number of values of each type, as safetensors names types.

    Raises:
        ModelUnreadable: They are.
    """
    packed = sum(count for kind, count in values.items() if kind in _QUANTISED)
    if packed > _FEW * sum(values.values()):
        kinds = ", ".join(sorted(kind for kind in values if kind in _QUANTISED))
        raise ModelUnreadable(
            f"the weights are quantised ({kinds}); give the checkpoint as it was before, in float32, float16 or bfloat16",
            param="model",
        )


def stored_type(values: Mapping[str, int]) -> str:
    """Name the type of a checkpoint's weights: that of most values; float32 where float16 and bfloat16 are mixed.

    Neither of those two holds all that the other does: one lacks the range, the other the digits.
    """
    found = {kind: count for kind, count in values.items() if kind in _FLOATS}
    if not found or {"F16", "BF16"} <= found.keys():
        return "float32"
    return _FLOATS[max(found, key=lambda kind: found[kind])]


def mixture(values: Mapping[str, int]) -> str | None:
    """Say in a sentence that a checkpoint mixes types; None where it does not."""
    found = sorted({_FLOATS[kind] for kind in values if kind in _FLOATS})
    if len(found) < 2:
        return None
    kinds = " and ".join(found)
    return f"the base model's weights mix {kinds}; with artifacts.dtype auto all are written in {stored_type(values)}"
