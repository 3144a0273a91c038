"""One half of a block of the live model: ``h' = after(h + inner(output(features(before(h)))))``.

Pruning removes units from ``features``; recovery refits ``output``. ``features`` is what the model's own code gives to the
output projection: the block, or the FFN's module, runs with its arguments as the model gave them and is left as soon as it
gets there. So relative positions, rotary embeddings, causal and sliding masks, gates and norms of single heads need no code
here. Each half runs on its own, so that no layer is run twice to read a statistic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.linear import bias_of, inputs_of, keep_inputs_, keep_outputs_, outputs_of
from pruning_core.arch.signatures import BlockSignature, SublayerSignature, UnitRows
from pruning_core.arch.units import RowCount, UnitGroup, unit_group
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.shapes import Bool, Float, Int

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear

_HEAD_SIZES = ("attention_head_size", "head_dim", "key_value_proj_dim")
# What attention modules call the number of their heads, and the width of all heads together. Some reshape by them.
_HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_heads")
_WIDTHS = ("all_head_size", "split_size", "inner_dim", "hidden_size", "embed_dim")
_GROUP_COUNT = "num_key_value_heads"


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What a batch brings into a block beside the hidden states.

    Attributes:
        real: True at real tokens, (batch, length).
        kwargs: What the model gives the block beside the hidden states, by name, caches left out.
    """

    real: Bool[Tensor, "b s"]
    kwargs: Mapping[str, object] = field(default_factory=dict[str, object])

    def reading(self, memory: Float[Tensor, "b s d"]) -> BlockContext:
        """Give the same with another output of the encoder, where the block reads one."""
        name = "encoder_hidden_states"
        return replace(self, kwargs={**self.kwargs, name: memory}) if self.kwargs.get(name) is not None else self


@dataclass(frozen=True, slots=True)
class Part:
    """A linear whose output rows belong to units: ``pieces`` matrices one after the other, ``rows`` rows of each a unit.

    Keys and values of cross-attention read the memory, which is the encoder's output.
    """

    linear: AnyLinear
    rows: int
    pieces: int
    reads_memory: bool = False

    def keep_(self, kept: Int[Tensor, " u"]) -> None:
        """Remove in place the rows of all other units."""
        own = kept[:, None] * self.rows + torch.arange(self.rows, device=kept.device)
        width = outputs_of(self.linear) // self.pieces
        keep_outputs_(self.linear, torch.cat([piece * width + own.flatten() for piece in range(self.pieces)]))


@dataclass(frozen=True, slots=True)
class Sublayer:
    """One half of a block, as modules of the live model.

    Attributes:
        layer: Index of the block.
        block: The block itself.
        family: The block's signature.
        signature: The half's own.
        unit_width: Columns of ``features`` that belong to one unit: the heads that share a key and a value, 1 for an FFN.
        parts: Linears that read the hidden states and whose rows belong to units.
        followers: Other linears whose rows belong to units.
        output: The output projection; its input columns belong to units.
        before: Norm of what is read; None where there is none, as of the two others.
        inner: Norm of what is added.
        after: Norm of the sum.
    """

    layer: int
    block: nn.Module
    family: BlockSignature
    signature: SublayerSignature
    unit_width: int
    parts: tuple[Part, ...]
    followers: tuple[Part, ...]
    output: AnyLinear
    before: nn.Module | None
    inner: nn.Module | None
    after: nn.Module | None

    @property
    def inputs(self) -> tuple[AnyLinear, ...]:
        """The linears that read the hidden states: Q, K, V, or the first FFN matrix and its gate."""
        return tuple(part.linear for part in self.parts)

    @property
    def width(self) -> int:
        """Columns of ``features``."""
        return inputs_of(self.output)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return outputs_of(self.output)

    @property
    def units(self) -> int:
        """Number of heads or neurons now present."""
        return self.width // self.unit_width

    @property
    def group(self) -> UnitGroup:
        """Size and price of the units now present."""

        def count(part: Part) -> RowCount:
            return RowCount(part.rows * part.pieces, bias_of(part.linear) is not None)

        return unit_group(
            self.layer,
            self.signature.kind,
            units=self.units,
            unit_width=self.unit_width,
            hidden=self.hidden,
            inputs=[count(part) for part in self.parts],
            followers=[count(part) for part in self.followers],
            least_neurons=self.family.least_neurons,
        )

    def read(self, hidden: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Give what the sublayer's linears read of the residual stream."""
        return hidden if self.before is None else self.before(hidden)

    def features(self, hidden: Float[Tensor, "b s d"], context: BlockContext) -> Float[Tensor, "b s k"]:
        """Compute the input of the output projection: attention context of the heads, or FFN activations."""
        if self.signature.kind == "head":
            if self.family.plain:
                return self._softmax_attention(hidden, context.real)
            if not self.signature.crosses:
                return caught(self.output, lambda: self.block(hidden, **context.kwargs))
            given = {name: context.kwargs[source] for name, source in self.signature.crosses}
            return caught(self.output, lambda: self.module(self.read(hidden), **given))
        read = self.read(hidden)
        if self.signature.activation is not None:
            activation = cast("Callable[[Tensor], Tensor]", get(self.block, self.signature.activation))
            return activation(self.parts[0].linear(read))
        return caught(self.output, lambda: self.module(read))

    def total(self, hidden: Float[Tensor, "b s d"], features: Float[Tensor, "b s k"]) -> Float[Tensor, "b s d"]:
        """Give the residual sum, before the norm that may follow it."""
        added = self.output(features)
        return hidden + (added if self.inner is None else self.inner(added))

    def close(self, total: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Give the hidden states that follow a residual sum."""
        return total if self.after is None else self.after(total)

    def forward(self, hidden: Float[Tensor, "b s d"], context: BlockContext) -> Float[Tensor, "b s d"]:
        """Run the sublayer."""
        return self.close(self.total(hidden, self.features(hidden, context)))

    def slice_(self, kept: Int[Tensor, " u"]) -> None:
        """Remove in place every unit that is not in ``kept`` (ascending unit indices)."""
        for part in (*self.parts, *self.followers):
            part.keep_(kept)
        columns = (kept[:, None] * self.unit_width + torch.arange(self.unit_width, device=kept.device)).flatten()
        keep_inputs_(self.output, columns)
        if self.signature.kind == "head":
            self._tell_module_(kept)

    def copied(self) -> Sublayer:
        """Give the same half of a copy of the block."""
        return sublayer_of(copy.deepcopy(self.block), self.layer, self.family, self.signature)

    @property
    def is_first(self) -> bool:
        """Whether the block begins with it."""
        return self.signature is self.family.sublayers[0]

    @property
    def module(self) -> nn.Module:
        """The attention's own module, or the FFN's; the block where an FFN has none."""
        return cast("nn.Module", get(self.block, self.signature.module)) if self.signature.module else self.block

    @property
    def counts(self) -> dict[str, int | list[int]]:
        """What the attention's module says of its heads, which a loader must set as it sets widths."""
        if self.signature.kind != "head":
            return {}
        names = (*_HEAD_COUNTS, _GROUP_COUNT, *_WIDTHS, "position_heads")
        return {name: getattr(self.module, name) for name in names if hasattr(self.module, name)}

    def _tell_module_(self, kept: Int[Tensor, " u"]) -> None:
        from pruning_core.plugin.per_layer import choose_positions

        for name in _WIDTHS:
            if hasattr(self.module, name):
                setattr(self.module, name, self.width)
        if hasattr(self.module, _GROUP_COUNT):
            setattr(self.module, _GROUP_COUNT, self.units)
        queries = self.unit_width // head_size(self.module)
        for name in _HEAD_COUNTS:
            if hasattr(self.module, name):
                setattr(self.module, name, self.units * queries)
        if self.signature.positions:
            before = getattr(self.module, "position_heads", None)
            choose_positions(self.module, kept.tolist() if before is None else [before[unit] for unit in kept.tolist()])

    def _softmax_attention(self, hidden: Float[Tensor, "b s d"], real: Bool[Tensor, "b s"]) -> Float[Tensor, "b s k"]:
        batch, length, _ = hidden.shape
        query, key, value = (
            part.linear(hidden).view(batch, length, self.units, self.unit_width).transpose(1, 2) for part in self.parts
        )
        # Full batches need no mask, and the fused kernels are faster without one.
        mask = None if bool(real.all()) else real[:, None, None, :]
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return context.transpose(1, 2).reshape(batch, length, -1)


def sublayer_of(block: nn.Module, layer: int, family: BlockSignature, signature: SublayerSignature) -> Sublayer:
    """Find the parts of a half in a block that answers to its signature."""
    output = cast("AnyLinear", get(block, signature.output))
    size, unit_width = 1, 1
    if signature.kind == "head":
        module = get(block, signature.module)
        size = head_size(module)
        unit_width = size * cast("int", getattr(module, "num_key_value_groups", 1))

    def part(rows: UnitRows) -> Part:
        return Part(
            cast("AnyLinear", get(block, rows.path)),
            size if rows.grouped else unit_width,
            rows.pieces,
            rows.grouped and bool(signature.crosses),
        )

    def norm(path: str | None) -> nn.Module | None:
        return None if path is None else cast("nn.Module", get(block, path))

    return Sublayer(
        layer=layer,
        block=block,
        family=family,
        signature=signature,
        unit_width=unit_width,
        parts=tuple(part(rows) for rows in signature.inputs),
        followers=tuple(part(rows) for rows in signature.followers if get(block, rows.path) is not None),
        output=output,
        before=norm(signature.before),
        inner=norm(signature.inner) or _scale_of(block),
        after=norm(signature.after),
    )


class _Scale(nn.Module):
    """Multiplies by a number, where a norm of what is added may stand."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return values * self.factor


def _scale_of(block: nn.Module) -> nn.Module | None:
    """Give what multiplies the sums of a block's halves (Granite); None where nothing does."""
    factor = cast("float", getattr(block, "residual_multiplier", 1.0))
    return None if factor == 1 else _Scale(factor)


def head_size(module: object) -> int:
    """Give the width of one head, as the attention's module has it.

    Raises:
        UnsupportedArchitecture: It does not say.
    """
    size = next((cast("int", getattr(module, name)) for name in _HEAD_SIZES if hasattr(module, name)), None)
    if size is None:
        kind = type(module).__name__
        raise UnsupportedArchitecture(f"the model's attention ({kind}) does not say how wide a head is", param="model")
    return size


def get(module: object, path: str) -> object:
    """Follow a path of attributes; None where it ends early."""
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


class _Reached(Exception):  # a jump out of the model's code, not an error
    pass


def caught(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """Run until a module is called, and give its first argument."""
    found: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(args[0])
        raise _Reached

    handle = module.register_forward_pre_hook(stop)
    try:
        run()
    except _Reached:
        return found[0]
    finally:
        handle.remove()
    raise AssertionError("a block runs its own output projection")
