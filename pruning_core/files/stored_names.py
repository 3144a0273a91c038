"""Names of stored tensors: what wrappers of a model put into them, and tables that transformers does not read. Torch-free.

A model that is saved while it is compiled (``_orig_mod.``), spread over devices (``module.``, FSDP), or inside a class of one's
own (``model.``) has its tensors under longer names, and transformers finds none of them. Where all names are wrapped alike, the
wrapper is taken off; where some are, nobody knows what they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pruning_core.errors import ModelUnreadable

# Wrappers of any module of a model, which put their name where the module stands.
_INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
# Wrappers of a whole model.
_OUTER = ("module.", *_INNER)
_ATTRIBUTE = "model."  # where a class of one's own keeps it, as Lightning's modules do
# Model types whose names begin otherwise, so that this is a wrapper; in all others it may be transformers' own.
_OTHER_BASES: Mapping[str, str] = {
    **dict.fromkeys(("bert", "megatron-bert"), "bert."),
    **dict.fromkeys(("camembert", "roberta", "xlm-roberta", "xlm-roberta-xl"), "roberta."),
    **dict.fromkeys(("falcon", "gpt2", "gptj", "mt5", "t5"), "transformer."),
    **dict.fromkeys(("vit", "vit_msn"), "vit."),
    "roberta-prelayernorm": "roberta_prelayernorm.",
    **dict.fromkeys(("deberta", "deberta-v2"), "deberta."),
    **{
        name: f"{name}."
        for name in (
            "albert",
            "deit",
            "dinov2",
            "dinov2_with_registers",
            "distilbert",
            "electra",
            "ernie",
            "gpt_neox",
            "ijepa",
            "mpnet",
        )
    },
}
_DEEPEST = 8
_ADAPTED = re.compile(r"(^|\.)(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer)(\.|$)|^base_model\.model\.")
# Tables that older versions of transformers stored, and which those of today compute: GPT-2's masks, and positions.
_COMPUTED = re.compile(r"(.*\.)?(h\.\d+\.(attn|crossattention)\.(bias|masked_bias)|position_ids|rotary_emb\.inv_freq)")
_MASK_AXES = 4  # of a mask; a bias of a matrix has one axis


@dataclass(frozen=True, slots=True)
class PlainNames:
    """The names of a checkpoint's tensors as transformers knows them.

    Attributes:
        wrappers: The wrappers that were taken off, outermost first.
        of: Plain name of each stored name.
    """

    wrappers: tuple[str, ...]
    of: Mapping[str, str]


def plain_names(stored: Collection[str], model_type: object) -> PlainNames:
    """Take the wrappers off the names of a checkpoint.

    Args:
        stored: The names.
        model_type: Type of the model, as its configuration says.

    Raises:
        ModelUnreadable: Some of the names are wrapped and others are not, or two become one.
    """
    found = {name: name for name in stored}
    wrappers: list[str] = []
    for _ in range(_DEEPEST):
        wrapper = _around(found.values(), model_type)
        if wrapper is None:
            break
        wrappers.append(wrapper)
        found = {name: own.removeprefix(wrapper) for name, own in found.items()}
    for wrapper in _INNER:
        if any(f".{wrapper}" in own for own in found.values()):
            wrappers.append(wrapper)
            found = {name: own.replace(f".{wrapper}", ".") for name, own in found.items()}
    if len(set(found.values())) != len(found):
        raise ModelUnreadable(
            f"tensors are stored twice, with {', '.join(wrappers)} in their names and without; save the model's own weights "
            "once, by its save_pretrained",
            param="model",
        )
    return PlainNames(tuple(dict.fromkeys(wrappers)), found)


def _around(names: Collection[str], model_type: object) -> str | None:
    """Return the outermost wrapper of the whole model; None where there is none."""
    for wrapper in _OUTER:
        wrapped = sum(name.startswith(wrapper) for name in names)
        if wrapped == len(names) and names:
            return wrapper
        if wrapped:
            raise ModelUnreadable(
                f"the names of {wrapped} of the {len(names)} tensors begin with {wrapper}, which a wrapper of the model puts "
                "there, and those of the others do not; save the model that is wrapped, by its save_pretrained",
                param="model",
            )
    if not names or not all(name.startswith(_ATTRIBUTE) for name in names):
        return None
    base = _OTHER_BASES.get(model_type) if isinstance(model_type, str) else None
    twice = any(name.startswith(2 * _ATTRIBUTE) for name in names)
    return _ATTRIBUTE if base is not None or twice else None


def said_of_wrappers(wrappers: Sequence[str]) -> tuple[str, ...]:
    """Say which wrappers were taken off the names; nothing where none was."""
    if not wrappers:
        return ()
    named = ", ".join(wrappers)
    return (f"the names of the model's tensors hold {named}, which a wrapper put there when it was saved; that was left out",)


def refuse_adapters(names: Collection[str]) -> None:
    """Refuse the weights of an adapter, which are a model's only together with another model's.

    Args:
        names: Stored names of the tensors.

    Raises:
        ModelUnreadable: There are such weights.
    """
    adapted = next((name for name in names if _ADAPTED.search(name)), None)
    if adapted is not None:
        raise is_adapter(None, f"it has a tensor {adapted[:96]}")


def is_adapter(base: str | None, why: str) -> ModelUnreadable:
    """Make the error for the weights of an adapter."""
    of = "" if base is None else f" of {base}"
    return ModelUnreadable(
        f"this is a LoRA adapter{of}, or a model with one in it ({why}); merge it first (merge_and_unload) and give the merged "
        "checkpoint, or give its base as the model and this folder as the adapter",
        param="model",
    )


def is_computed(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a stored tensor is a table that transformers computes, and does not read."""
    return _COMPUTED.fullmatch(name) is not None and (not name.endswith(".bias") or len(shape) == _MASK_AXES)
