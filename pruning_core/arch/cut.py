"""Cutting of a model to a mask: units, whole attentions and whole blocks are removed in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruning_core.arch.adapter import adapt, holder
from pruning_core.arch.masks import Mask
from pruning_core.arch.paging import held, page_of
from pruning_core.arch.sublayer import Sublayer
from pruning_core.plugin.per_layer import leave_out_attention_

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def drop_sublayers_(model: PreTrainedModel, mask: Mask) -> tuple[int, ...]:
    """Remove in place what has no shape without a head: a block of which no unit stays, and an attention beside an FFN.

    Returns:
        Indices of the sublayers that stay, as numbered before the removal.

    Raises:
        ValueError: The mask keeps neurons, and no head, of a block that must have its attention.
    """
    adapter = adapt(model)
    heads: dict[int, int] = {}
    units: dict[int, int] = {}
    for sublayer, count in zip(adapter.sublayers, mask.counts(), strict=True):
        units[sublayer.layer] = units.get(sublayer.layer, 0) + count
        if sublayer.signature.kind == "head":
            heads[sublayer.layer] = heads.get(sublayer.layer, 0) + count
    gone = [layer for layer, count in heads.items() if not count and not units[layer]]
    absent = [
        index
        for index, sublayer in enumerate(adapter.sublayers)
        if sublayer.signature.kind == "head" and not heads[sublayer.layer] and sublayer.layer not in gone
    ]
    for index in absent:
        _leave_out_(adapter.sublayers[index])
    if gone:
        blocks, _ = holder(model, adapter.first_block)
        for layer in reversed(gone):
            del blocks[layer]
        for layer, block in enumerate(blocks):
            for module in block.modules():  # the key-value cache is indexed by it
                if hasattr(module, "layer_idx"):
                    setattr(module, "layer_idx", layer)  # noqa: B010 - torch types attributes as tensors
    return tuple(
        index for index, sublayer in enumerate(adapter.sublayers) if sublayer.layer not in gone and index not in absent
    )


def _leave_out_(sublayer: Sublayer) -> None:
    """Take an attention, and the norm before it, out of its block."""
    signature, block = sublayer.signature, sublayer.block
    if not sublayer.family.lacks_attention or sublayer.layer == 0 or signature.before is None:
        raise ValueError(f"layer {sublayer.layer + 1} of a {sublayer.family.family} keeps its FFN and must keep a head")
    page = page_of(block)
    if page is not None:
        page.forget((*sublayer.inputs, sublayer.output))
    leave_out_attention_(block, signature.module, signature.before)


def slice_(model: PreTrainedModel, mask: Mask) -> None:
    """Remove in place every unit that the mask does not keep. The remaining weights are not refitted."""
    survivors = drop_sublayers_(model, mask)
    for index, sublayer in zip(survivors, adapt(model).sublayers, strict=True):
        with held(sublayer.block):
            sublayer.slice_(mask.indices(index).to(model.device))
