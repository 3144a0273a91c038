"""Removal of dead units: units that nothing reads, or whose output is the same for every token, because weights are zero.

A neuron whose row of the first FFN matrix is zero gives the constant ``act(b)``. A head whose value rows are zero gives the
constant ``b_v``, since attention weights sum to one. Such constants move into the bias of the output projection. Units whose
columns of the output projection are zero have no effect at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.linear import bias_of, outputs_of, set_, weight_of
from pruning_core.arch.masks import Mask
from pruning_core.arch.paging import held
from pruning_core.arch.sublayer import Sublayer, get
from pruning_core.shapes import Bool, Float, Int

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear

_VALUE = 2  # index of the value projection among query, key and value


def remove_dead_(student: ModelAdapter, allowance: int) -> Mask:
    """Remove dead units in place, those with the fewest nonzero weights first.

    Each sublayer keeps at least one unit, since attention without heads has no shape.

    Args:
        student: The model after weights were set to zero; it gets new parameters in place.
        allowance: Largest number of nonzero weights to remove with the units. A dead unit may still have nonzero weights, and
            removing them must not overshoot the target.

    Returns:
        The mask of the units that stay.
    """
    dead: list[Bool[Tensor, " units"]] = []
    prices: list[tuple[int, int, int]] = []  # weights that go, sublayer, unit
    for index, sublayer in enumerate(student.sublayers):
        with held(sublayer.block):
            dead.append(_dead(sublayer))
            costs = _nonzeros(sublayer)
        prices += [(int(costs[unit]), index, unit) for unit in dead[-1].nonzero().flatten().tolist()]
    kept = [torch.ones(len(own), dtype=torch.bool) for own in dead]
    for price, index, unit in sorted(prices):
        if price > allowance:
            break
        if int(kept[index].sum()) > max(1, student.sublayers[index].group.floor):
            kept[index][unit] = False
            allowance -= price
    for sublayer, own in zip(student.sublayers, kept, strict=True):
        if not bool(own.all()):
            with held(sublayer.block):
                _fold_constants_(sublayer, (~own).nonzero().flatten())
                sublayer.slice_(own.nonzero().flatten().to(student.model.device))
    return Mask(tuple(kept))


def _dead(sublayer: Sublayer) -> Bool[Tensor, " units"]:
    unread = ~_by_unit(sublayer, (weight_of(sublayer.output) != 0).any(0))
    source = _source(sublayer)
    if source is None or bias_of(sublayer.output) is None:
        return unread.cpu()
    return (unread | ~_by_unit(sublayer, (weight_of(source) != 0).any(1))).cpu()


def _source(sublayer: Sublayer) -> AnyLinear | None:
    """Return the linear whose zero rows make a unit's output constant; None if none is known."""
    signature = sublayer.signature
    if signature.kind == "head":
        return sublayer.inputs[_VALUE] if sublayer.family.plain else None
    return sublayer.inputs[0] if signature.activation is not None and len(sublayer.parts) == 1 else None


def _nonzeros(sublayer: Sublayer) -> Int[Tensor, " units"]:
    """Count the nonzero weights of each unit."""
    found = _per_unit(sublayer, (weight_of(sublayer.output) != 0).sum(0))
    for part in sublayer.parts:
        found = found + part.per_unit((weight_of(part.linear) != 0).sum(1))
    return found.cpu()


def _per_unit(sublayer: Sublayer, columns: Int[Tensor, " k"]) -> Int[Tensor, " units"]:
    return columns.unflatten(0, (-1, sublayer.unit_width)).sum(1)


def _by_unit(sublayer: Sublayer, columns: Bool[Tensor, " k"]) -> Bool[Tensor, " units"]:
    return columns.unflatten(0, (-1, sublayer.unit_width)).any(1)


def _fold_constants_(sublayer: Sublayer, gone: Int[Tensor, " u"]) -> None:
    """Move the constant outputs of removed units into the bias of the output projection."""
    source, bias = _source(sublayer), bias_of(sublayer.output)
    if source is None or bias is None:
        return
    weight = weight_of(sublayer.output)
    offsets = torch.arange(sublayer.unit_width)
    columns = (gone[:, None] * sublayer.unit_width + offsets).flatten().to(weight.device)
    constant = _constants(sublayer, source)[columns]
    constant = constant * ~(weight_of(source)[columns] != 0).any(1)  # a unit that nothing reads need not be constant
    set_(sublayer.output, weight, bias.double() + weight[:, columns].double() @ constant.double())


def _constants(sublayer: Sublayer, source: AnyLinear) -> Float[Tensor, " k"]:
    bias = bias_of(source)
    values = torch.zeros(outputs_of(source), device=source.weight.device) if bias is None else bias
    path = sublayer.signature.activation
    return values if path is None else cast("Callable[[Tensor], Tensor]", get(sublayer.block, path))(values)
