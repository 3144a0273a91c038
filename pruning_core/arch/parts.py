"""Matrices of the loaded model whose output rows belong to units, one matrix or several that are fused, and widths of heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from pruning_core.arch.linear import keep_outputs_, outputs_of
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.shapes import Int

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear


_HEAD_SIZES = ("attention_head_size", "head_dim", "key_value_proj_dim", "head_size")


@dataclass(frozen=True, slots=True)
class Part:
    """A linear whose output rows belong to units.

    Attributes:
        linear: The layer.
        rows: Rows of one unit in each of the matrices that the layer fuses, which lie one after the other.
        reads_memory: Whether it reads the memory (the encoder's output), as keys and values of cross-attention do.
    """

    linear: AnyLinear
    rows: tuple[int, ...]
    reads_memory: bool = False

    @property
    def units(self) -> int:
        """Number of units now present."""
        return outputs_of(self.linear) // sum(self.rows)

    def rows_of(self, units: Int[Tensor, " u"]) -> Int[Tensor, " n"]:
        """Return the indices of the rows of units: in the first fused matrix, then in the next one."""
        starts = [self.units * sum(self.rows[:piece]) for piece in range(len(self.rows))]
        own = [units[:, None] * rows + torch.arange(rows, device=units.device) for rows in self.rows]
        return torch.cat([start + rows.flatten() for start, rows in zip(starts, own, strict=True)])

    def per_unit(self, values: Int[Tensor, " n"]) -> Int[Tensor, " u"]:
        """Sum up the values of each unit's rows."""
        pieces = values.split([self.units * rows for rows in self.rows])
        return torch.stack([piece.view(-1, rows).sum(1) for piece, rows in zip(pieces, self.rows, strict=True)]).sum(0)

    def keep_(self, kept: Int[Tensor, " u"]) -> None:
        """Remove in place the rows of all other units."""
        keep_outputs_(self.linear, self.rows_of(kept))


def head_size(module: object) -> int:
    """Return the width of one head, as the attention module states it.

    Raises:
        UnsupportedArchitecture: The module does not state it.
    """
    size = next((cast("int", getattr(module, name)) for name in _HEAD_SIZES if hasattr(module, name)), None)
    if size is None:
        kind = type(module).__name__
        raise UnsupportedArchitecture(f"the model's attention ({kind}) does not say how wide a head is", param="model")
    return size


def queries_of(module: object) -> int:
    """Return how many queries of an attention share a key and a value."""
    keys = cast("int | None", getattr(module, "num_kv_heads", None))
    if keys is not None:
        return cast("int", getattr(module, "num_heads")) // keys  # noqa: B009 - torch types attributes as tensors
    return cast("int", getattr(module, "num_key_value_groups", 1))
