"""Post-norm encoders: BERT, RoBERTa, ELECTRA, DistilBERT and whatever else shares their block structure.

A block is two sublayers, attention and FFN, of the same form: ``y = norm(x + output(features(x)))``. Pruning removes
units from ``features``; recovery refits ``output``. Each half runs on its own, so that no layer is run twice to read a
statistic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.signatures import SIGNATURES, BlockSignature
from pruning_core.cost import UnitGroup, head_group, neuron_group
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.masks import Mask
from pruning_core.shapes import Bool, Float, Int

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Sublayer:
    """One half of a block, as modules of the live model.

    Attributes:
        layer: Index of the block.
        unit_width: Columns of ``features`` that belong to one unit (head size for attention, 1 for an FFN).
        inputs: The linears whose output rows belong to units: Q, K, V, or the first FFN matrix.
        output: The output projection; its input columns belong to units.
        norm: The LayerNorm after the residual sum.
        activation: The FFN's activation; None for attention.
    """

    layer: int
    unit_width: int
    inputs: tuple[nn.Linear, ...]
    output: nn.Linear
    norm: nn.Module
    activation: Callable[[Tensor], Tensor] | None

    @property
    def units(self) -> int:
        """Number of heads or neurons now present."""
        return self.output.in_features // self.unit_width

    @property
    def group(self) -> UnitGroup:
        """Size and price of the units now present."""
        biases = all(_bias(linear) is not None for linear in self.inputs)
        hidden = self.output.out_features
        if self.activation is None:
            return head_group(self.layer, heads=self.units, head_size=self.unit_width, hidden=hidden, biases=biases)
        return neuron_group(self.layer, neurons=self.units, hidden=hidden, biases=biases)

    def features(self, hidden: Float[Tensor, "b s d"], real: Bool[Tensor, "b s"]) -> Float[Tensor, "b s k"]:
        """Compute the input of the output projection: attention context of the heads, or FFN activations."""
        if self.activation is not None:
            return self.activation(self.inputs[0](hidden))
        batch, length, _ = hidden.shape
        query, key, value = (
            linear(hidden).view(batch, length, self.units, self.unit_width).transpose(1, 2) for linear in self.inputs
        )
        # Full batches need no mask, and the fused kernels are faster without one.
        mask = None if bool(real.all()) else real[:, None, None, :]
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return context.transpose(1, 2).reshape(batch, length, -1)

    def slice_(self, kept: Int[Tensor, " u"]) -> None:
        """Remove in place every unit that is not in ``kept`` (ascending unit indices)."""
        offsets = torch.arange(self.unit_width, device=kept.device)
        columns = (kept[:, None] * self.unit_width + offsets).flatten()
        for linear in self.inputs:
            _keep_rows_(linear, columns)
        _keep_columns_(self.output, columns)


@dataclass(frozen=True, slots=True)
class EncoderAdapter:
    """The blocks of an encoder, each as two sublayers, first to last: attention 0, FFN 0, attention 1, ..."""

    model: PreTrainedModel
    first_block: nn.Module
    sublayers: tuple[Sublayer, ...]

    @property
    def groups(self) -> tuple[UnitGroup, ...]:
        """Size and price of every sublayer's units."""
        return tuple(sublayer.group for sublayer in self.sublayers)

    def embed(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "b s d"]:
        """Compute the input of the first block, through the model's own embedding code."""
        captured: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            captured.append(args[0] if args else kwargs["hidden_states"])
            raise _EmbeddingReached

        handle = self.first_block.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.model(**inputs)
        except _EmbeddingReached:
            return captured[0]
        finally:
            handle.remove()
        raise UnsupportedArchitecture("the model's forward pass never reaches its first block", param="model")

    def blocks_forward(self, hidden: Float[Tensor, "b s d"], real: Bool[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """Run all blocks through the sublayers."""
        for sublayer in self.sublayers:
            hidden = sublayer.norm(hidden + sublayer.output(sublayer.features(hidden, real)))
        return hidden

    @contextmanager
    def masked(self, masks: tuple[Float[Tensor, " u"], ...]) -> Generator[None]:
        """Multiply each unit by its mask at the input of the output projection, while the context is open."""
        handles = [
            sublayer.output.register_forward_pre_hook(_multiply(mask.repeat_interleave(sublayer.unit_width)))
            for sublayer, mask in zip(self.sublayers, masks, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _EmbeddingReached(Exception):  # a jump out of the model's forward, not an error
    pass


def _multiply(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] * mask, *args[1:])

    return hook


def adapt(model: PreTrainedModel) -> EncoderAdapter:
    """Find the blocks of a model by their structure.

    Raises:
        UnsupportedArchitecture: No signature fits.
    """
    for signature in SIGNATURES:
        blocks = [module for module in model.modules() if _matches(module, signature)]
        if blocks:
            halves = [half for layer, block in enumerate(blocks) for half in _halves(block, layer, signature)]
            return EncoderAdapter(model, blocks[0], tuple(halves))
    raise UnsupportedArchitecture(
        f"{type(model).__name__} has no block structure that Coppice can prune yet; encoders built like BERT, RoBERTa, "
        "ELECTRA or DistilBERT are supported",
        param="model",
    )


def clone(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model whose sublayers will be sliced; parameters are shared with the original until then.

    Slicing gives a sublayer weights of its own. Only the bias of its output projection is changed in place and not sliced.
    """
    own = {id(_bias(sublayer.output)) for sublayer in adapt(model).sublayers}
    shared = {id(p): p for p in model.parameters() if id(p) not in own}
    return copy.deepcopy(model, cast("dict[int, object]", shared))


def drop_blocks_(model: PreTrainedModel, mask: Mask) -> tuple[int, ...]:
    """Remove in place every block of which the mask keeps no head: attention over no head has no shape, so all of it goes.

    Returns:
        Indices of the sublayers that stay, as they were counted before.
    """
    counts = mask.counts()
    gone = [layer for layer in range(len(counts) // 2) if counts[2 * layer] == 0]
    if gone:
        adapter = adapt(model)
        blocks = next(
            module for module in model.modules() if isinstance(module, nn.ModuleList) and adapter.first_block in list(module)
        )
        for layer in reversed(gone):
            del blocks[layer]
    return tuple(index for index in range(len(counts)) if index // 2 not in gone)


def slice_(model: PreTrainedModel, mask: Mask) -> None:
    """Remove in place everything that the mask does not keep, repairing nothing."""
    survivors = drop_blocks_(model, mask)
    for index, sublayer in zip(survivors, adapt(model).sublayers, strict=True):
        sublayer.slice_(mask.indices(index).to(sublayer.output.weight.device))


def verify(adapter: EncoderAdapter, inputs: Mapping[str, Tensor]) -> None:
    """Check on real inputs that running the halves gives what the model's own blocks give.

    A model may have the modules of a known structure and still compute something else (relative positions, pre-norm,
    decoding). This is where such a one is caught, before anything is built on it.

    Raises:
        UnsupportedArchitecture: They differ.
    """
    reached: list[Tensor] = []
    last = adapter.sublayers[-1].norm

    def keep(_module: nn.Module, _args: object, output: Tensor) -> None:
        reached.append(output)

    handle = last.register_forward_hook(keep)
    try:
        with torch.no_grad():
            adapter.model(**inputs)
    finally:
        handle.remove()
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        ours = adapter.blocks_forward(adapter.embed(inputs), real)
    theirs = reached[-1]
    error = ((ours - theirs)[real].norm() / theirs[real].norm()).item()
    if not error < 1e-4:
        raise UnsupportedArchitecture(
            "the model has the modules of a BERT-like encoder but computes something else (relative difference "
            f"{error:.1e}); pre-norm blocks and relative positions are not supported yet",
            param="model",
        )


def _matches(module: nn.Module, signature: BlockSignature) -> bool:
    paths = (signature.query, signature.key, signature.value, signature.attention_output)
    linears = [_get(module, path) for path in (*paths, signature.ffn_input, signature.ffn_output)]
    norms = [_get(module, path) for path in (signature.attention_norm, signature.ffn_norm)]
    return all(isinstance(linear, nn.Linear) for linear in linears) and all(isinstance(n, nn.LayerNorm) for n in norms)


def _get(module: nn.Module, path: str) -> object:
    found: object = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _halves(block: nn.Module, layer: int, signature: BlockSignature) -> tuple[Sublayer, Sublayer]:
    def linear(path: str) -> nn.Linear:
        return cast("nn.Linear", _get(block, path))

    attention_module = _get(block, signature.query.rpartition(".")[0])
    head_size = cast("int", getattr(attention_module, "attention_head_size"))  # noqa: B009 - typed as object
    attention = Sublayer(
        layer=layer,
        unit_width=head_size,
        inputs=(linear(signature.query), linear(signature.key), linear(signature.value)),
        output=linear(signature.attention_output),
        norm=cast("nn.Module", _get(block, signature.attention_norm)),
        activation=None,
    )
    ffn = Sublayer(
        layer=layer,
        unit_width=1,
        inputs=(linear(signature.ffn_input),),
        output=linear(signature.ffn_output),
        norm=cast("nn.Module", _get(block, signature.ffn_norm)),
        activation=cast("Callable[[Tensor], Tensor]", _get(block, signature.activation)),
    )
    return attention, ffn


def _bias(linear: nn.Linear) -> nn.Parameter | None:
    return cast("nn.Parameter | None", linear.bias)  # torch's stubs forget that there may be none


def _keep_rows_(linear: nn.Linear, index: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.detach()[index].contiguous(), requires_grad=False)
    bias = _bias(linear)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach()[index].contiguous(), requires_grad=False)
    linear.out_features = len(index)


def _keep_columns_(linear: nn.Linear, index: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.detach()[:, index].contiguous(), requires_grad=False)
    linear.in_features = len(index)
