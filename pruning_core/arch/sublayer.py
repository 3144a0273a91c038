"""Sublayers of the loaded model, attention or FFN of a block: ``h' = after(h + inner(output(features(before(h)))))``.

In blocks whose sublayers stand side by side, both read what the block was given, x: ``h' = h + output(features(before(x)))``.
The hidden states between the two are then twice as wide: the residual stream, and behind it x. So they are in a block that a
convolution stands behind, which reads x, too (DeBERTa-v2-xlarge).

Pruning removes units from ``features``; recovery refits ``output``. ``features`` is the input of the output projection in the
model's own code: the block, or the FFN's module, runs with the arguments that the model gave it and is left at its output
projection. So relative positions, rotary embeddings, causal and sliding masks, gates and norms of single heads need no code
here. Each sublayer runs on its own, so that no layer is run twice to read a statistic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.experts import keep_experts_, listened_
from pruning_core.arch.linear import bias_of, inputs_of, keep_inputs_, outputs_of
from pruning_core.arch.parts import Part, head_size, queries_of
from pruning_core.arch.signatures import BlockSignature, Mixture, SublayerSignature, UnitRows
from pruning_core.arch.unit_costs import RowCount, UnitGroup, unit_group
from pruning_core.shapes import Bool, Float, Int

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear

# Names that attention modules have for the number of their heads, and for the width of all heads together. Some reshape by
# these attributes.
_HEAD_COUNTS = ("num_attention_heads", "num_heads", "n_heads")
_WIDTHS = ("all_head_size", "split_size", "inner_dim", "hidden_size", "embed_dim")
_GROUP_COUNTS = ("num_key_value_heads", "num_kv_heads")


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The arguments of a block beside the hidden states, for one batch.

    Attributes:
        real: Mask of real tokens, (batch, length).
        kwargs: The arguments that the model gives the block, by name, without caches.
    """

    real: Bool[Tensor, "b s"]
    kwargs: Mapping[str, object] = field(default_factory=dict[str, object])

    def reading(self, memory: Float[Tensor, "b s d"]) -> BlockContext:
        """Return the context with another encoder output, where the block reads one."""
        name = "encoder_hidden_states"
        return replace(self, kwargs={**self.kwargs, name: memory}) if self.kwargs.get(name) is not None else self


@dataclass(frozen=True, slots=True)
class Sublayer:
    """One sublayer, as modules of the loaded model.

    Attributes:
        layer: Index of the block.
        block: The block itself.
        family: Signature of the block.
        signature: Signature of the sublayer.
        unit_width: Columns of ``features`` that belong to one unit: those of all heads that share a key and a value, or 1 for
            an FFN.
        parts: Linears that read the hidden states and whose rows belong to units.
        followers: Other linears whose rows belong to units.
        output: The output projection, whose input columns belong to units.
        before: Norm of what the sublayer reads, or None.
        inner: Norm or scale of what it adds, or None.
        after: Norm of the residual sum, or None.
        joint: What stands behind the block and reads what the block was given and gives, or None.
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
    joint: nn.Module | None = None

    @property
    def inputs(self) -> tuple[AnyLinear, ...]:
        """The linears that read the hidden states: query, key and value projections, or the first FFN matrix and its gate."""
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
        """Number of units now present."""
        return self.width // self.unit_width

    @property
    def group(self) -> UnitGroup:
        """Number and cost of the units now present."""
        if self.signature.mixture is not None:
            return self._experts(self.signature.mixture)

        def count(part: Part) -> RowCount:
            return RowCount(sum(part.rows), bias_of(part.linear) is not None)

        return unit_group(
            self.layer,
            self.signature.kind,
            units=self.units,
            unit_width=self.unit_width,
            hidden=self.hidden,
            inputs=[count(part) for part in self.parts],
            followers=[count(part) for part in self.followers],
            vectors=len(self.signature.vectors),
            times=self.times,
            least_neurons=self.family.least_neurons,
            least=self.units if self.signature.kind == "head" and self.family.whole_attention else 0,
        )

    @property
    def times(self) -> int:
        """How often the model runs it: more than once where one block runs for all layers."""
        return cast("int", get(self.block, "config.num_hidden_layers")) if self.family.shared else 1

    def _experts(self, mixture: Mixture) -> UnitGroup:
        experts, router = get(self.block, mixture.experts), get(self.block, mixture.router)
        rows = cast("Tensor", getattr(experts, "gate_up_proj")).shape[2 if getattr(experts, "is_transposed") else 1]  # noqa: B009
        passed = cast("int", getattr(router, "top_k"))  # noqa: B009 - torch types attributes as tensors
        return unit_group(
            self.layer,
            "expert",
            units=self.units,
            unit_width=self.unit_width,
            hidden=self.hidden,
            inputs=[RowCount(rows, hasattr(experts, "gate_up_proj_bias"))],
            followers=[RowCount(1, getattr(router, "bias", None) is not None)],
            least=passed,
            passed=passed,
        )

    def stream(self, hidden: Float[Tensor, "b s w"]) -> Float[Tensor, "b s d"]:
        """Return the residual stream before the sublayer: hidden states may have what the block was given behind it."""
        return hidden[..., : self.hidden]

    def entered(self, hidden: Float[Tensor, "b s w"]) -> Float[Tensor, "b s d"]:
        """Return what the sublayer reads, before the norm: the residual stream, or what the block was given."""
        return self.given(hidden) if self.family.parallel else self.stream(hidden)

    def given(self, hidden: Float[Tensor, "b s w"]) -> Float[Tensor, "b s d"]:
        """Return what the block was given, where somebody reads it behind the first sublayer."""
        return hidden[..., -self.hidden :]

    def read(self, hidden: Float[Tensor, "b s w"]) -> Float[Tensor, "b s d"]:
        """Return what the sublayer's linears read of the hidden states."""
        entered = self.entered(hidden)
        return entered if self.before is None else self.before(entered)

    def features(self, hidden: Float[Tensor, "b s w"], context: BlockContext) -> Float[Tensor, "b s k"]:
        """Compute the input of the output projection: attention context of the heads, or FFN activations."""
        if self.signature.kind == "head":
            if self.family.plain:
                return self._softmax_attention(hidden, context.real)
            if not self.signature.crosses:
                return caught(self.output, lambda: self.block(self.entered(hidden), **context.kwargs))
            given = {name: context.kwargs[source] for name, source in self.signature.crosses}
            return caught(self.output, lambda: self.module(self.read(hidden), **given))
        read = self.read(hidden)
        if self.signature.activation is not None:
            activation = cast("Callable[[Tensor], Tensor]", get(self.block, self.signature.activation))
            return activation(self.parts[0].linear(read))
        found = caught(self.output, lambda: self.module(read))
        return found.view(*hidden.shape[:-1], -1)  # of a mixture, all tokens lie in one row

    def total(self, hidden: Float[Tensor, "b s w"], features: Float[Tensor, "b s k"]) -> Float[Tensor, "b s d"]:
        """Compute the residual sum, before the norm that may follow it."""
        added = self.added(hidden, features)
        return self.stream(hidden) + (added if self.inner is None else self.inner(added))

    def added(self, hidden: Float[Tensor, "b s w"], features: Float[Tensor, "b s k"]) -> Float[Tensor, "b s d"]:
        """Compute what the sublayer adds to the residual stream, before the norm or scale of it."""
        beside = self.beside(hidden)
        return self.output(features) if beside is None else self.output(features) + beside

    def beside(self, hidden: Float[Tensor, "b s w"]) -> Float[Tensor, "b s d"] | None:
        """Compute what is added beside the units: by the expert that all tokens pass through. None where there is none."""
        mixture = self.signature.mixture
        if mixture is None or mixture.shared is None:
            return None
        shared, gate = (cast("nn.Module", get(self.block, path)) for path in mixture.shared)
        read = self.read(hidden)
        return torch.sigmoid(gate(read)) * shared(read)

    def close(self, total: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Compute the residual stream after a residual sum."""
        return total if self.after is None else self.after(total)

    def leave(
        self, hidden: Float[Tensor, "b s w"], total: Float[Tensor, "b s d"], context: BlockContext
    ) -> Float[Tensor, "b s v"]:
        """Compute the hidden states after the sublayer.

        Args:
            hidden: Those before it.
            total: Its residual sum.
            context: The other arguments of the block.
        """
        closed = self.close(total)
        if self.signature is not self.family.sublayers[-1]:
            return torch.cat([closed, self.given(hidden)], dim=-1) if self.family.parallel or self.joint else closed
        return closed if self.joint is None else self.joint(self.given(hidden), closed, context.real.long())

    def forward(self, hidden: Float[Tensor, "b s w"], context: BlockContext) -> Float[Tensor, "b s v"]:
        """Run the sublayer."""
        return self.leave(hidden, self.total(hidden, self.features(hidden, context)), context)

    def slice_(self, kept: Int[Tensor, " u"]) -> None:
        """Remove in place every unit that is not in ``kept`` (ascending unit indices)."""
        if self.signature.mixture is not None:
            keep_experts_(self.module, kept)
            return
        for part in (*self.parts, *self.followers):
            part.keep_(kept)
        columns = (kept[:, None] * self.unit_width + torch.arange(self.unit_width, device=kept.device)).flatten()
        keep_inputs_(self.output, columns)
        for name in self.signature.vectors:
            values = cast("Tensor", getattr(self.module, name)).detach()
            setattr(self.module, name, nn.Parameter(values[columns], requires_grad=False))
        if self.signature.kind == "head":
            self._tell_module_(kept)

    def copied(self) -> Sublayer:
        """Return the same sublayer of a copy of the block."""
        return sublayer_of(copy.deepcopy(self.block), self.layer, self.family, self.signature)

    @property
    def module(self) -> nn.Module:
        """The attention module or the FFN's module; the block where the FFN has none."""
        return cast("nn.Module", get(self.block, self.signature.module)) if self.signature.module else self.block

    @property
    def counts(self) -> dict[str, int | list[int]]:
        """Attributes of the attention module that depend on its heads, by name. A loader must set them beside the widths.

        Of a vector, it is the length.
        """
        if self.signature.kind != "head":
            return {}
        names = (*_HEAD_COUNTS, *_GROUP_COUNTS, *_WIDTHS, "position_heads", "config_heads")
        lengths = dict.fromkeys(self.signature.vectors, self.width)
        return {name: getattr(self.module, name) for name in names if hasattr(self.module, name)} | lengths

    def _tell_module_(self, kept: Int[Tensor, " u"]) -> None:
        from pruning_core.plugin.per_layer import choose_positions, read_heads_

        queries = self.unit_width // head_size(self.module)
        counts = dict.fromkeys(_WIDTHS, self.width) | dict.fromkeys(_GROUP_COUNTS, self.units)
        for name, count in (counts | dict.fromkeys(_HEAD_COUNTS, self.units * queries)).items():
            if hasattr(self.module, name):
                setattr(self.module, name, count)
        if self.signature.config_heads:
            read_heads_(self.module, self.units * queries)
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
    """Find the parts of a sublayer in a block that matches its signature."""
    size, unit_width = 1, 1
    if signature.mixture is not None:
        experts = cast("nn.Module", get(block, signature.mixture.experts))
        output: AnyLinear = listened_(experts)
        unit_width = inputs_of(output) // cast("int", getattr(experts, "num_experts"))  # noqa: B009
    else:
        output = cast("AnyLinear", get(block, signature.output))
    if signature.kind == "head":
        module = get(block, signature.module)
        size = head_size(module)
        unit_width = size * queries_of(module)

    def part(rows: UnitRows) -> Part:
        return Part(
            cast("AnyLinear", get(block, rows.path)),
            rows.of_unit(size, unit_width),
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
    """A constant factor on what a sublayer adds, in the place of ``inner``."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return values * self.factor


def _scale_of(block: nn.Module) -> nn.Module | None:
    """Return the scale of what a block's sublayers add (Granite), or None where there is none."""
    factor = cast("float", getattr(block, "residual_multiplier", 1.0))
    return None if factor == 1 else _Scale(factor)


def is_absent(block: nn.Module, signature: SublayerSignature) -> bool:
    """Return whether a block lacks a sublayer: a module without weights is in its place, which adds nothing."""
    return signature.kind == "head" and getattr(get(block, signature.module), "is_absent", False) is True


def get(module: object, path: str) -> object:
    """Return the object at a path of attributes, or None where the path ends early."""
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


class _Reached(Exception):  # a jump out of the model's code, not an error
    pass


def caught(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """Run code until a module is called, and return the module's first argument."""
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
