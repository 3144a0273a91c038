"""The adapter: a model's blocks, found by their structure, each as sublayers that run on their own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.families import SIGNATURES
from pruning_core.arch.linear import is_linear, is_transposed
from pruning_core.arch.masks import Mask
from pruning_core.arch.paging import held
from pruning_core.arch.refused import reason_against, unsupported
from pruning_core.arch.signatures import BlockSignature
from pruning_core.arch.sublayer import BlockContext, Sublayer, get, sublayer_of
from pruning_core.arch.units import UnitGroup
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.shapes import Bool, Float

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pruning_core.arch.linear import AnyLinear


@dataclass(frozen=True, slots=True)
class Trace:
    """What a batch brings to the blocks.

    Attributes:
        hidden: The input of the first block, (batch, length, d).
        contexts: What else each block is given.
        decoder: The input of the first block of a decoder that follows; None where there is none.
    """

    hidden: Float[Tensor, "b s d"]
    contexts: tuple[BlockContext, ...]
    decoder: Float[Tensor, "b t d"] | None = None


@dataclass(frozen=True, slots=True)
class ModelAdapter:
    """The blocks of a model, each as its sublayers, first to last: attention 0, FFN 0, attention 1, ...

    A decoder's blocks follow its encoder's, each with its cross-attention between.
    """

    model: PreTrainedModel
    blocks: tuple[nn.Module, ...]
    sublayers: tuple[Sublayer, ...]

    @property
    def crossing(self) -> int | None:
        """Index of the first sublayer of a decoder that follows an encoder."""
        return next((i for i, own in enumerate(self.sublayers) if own.family is self.family.decoder), None)

    def memory(self, hidden: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Give what a decoder's blocks read of the encoder, from what its last block gives."""
        if self.family.memory is None:
            return hidden
        _, stack = _holder(self.model, self.first_block)
        return cast("nn.Module", get(stack, self.family.memory))(hidden)

    @property
    def paths(self) -> dict[nn.Module, str]:
        """Where every module of the model is."""
        return {module: path for path, module in self.model.named_modules()}

    @property
    def linears(self) -> dict[str, AnyLinear]:
        """Every linear of the blocks by its module path, in the order in which they are pruned."""
        paths = self.paths
        return {paths[linear]: linear for sublayer in self.sublayers for linear in (*sublayer.inputs, sublayer.output)}

    @property
    def written(self) -> frozenset[str]:
        """Paths of the linears that read the tokens of a decoder that follows an encoder, not the encoder's."""
        paths, first = self.paths, self.crossing
        own = () if first is None else self.sublayers[first:]
        inputs = (part.linear for sublayer in own for part in sublayer.parts if not part.reads_memory)
        return frozenset(paths[linear] for linear in (*inputs, *(sublayer.output for sublayer in own)))

    def held_linears(self) -> Iterator[tuple[str, AnyLinear]]:
        """Give the same one by one, each with its weights while it is looked at."""
        paths = self.paths
        for sublayer in self.sublayers:
            with held(sublayer.block):
                yield from ((paths[linear], linear) for linear in (*sublayer.inputs, sublayer.output))

    @property
    def first_block(self) -> nn.Module:
        """Where the embeddings end."""
        return self.blocks[0]

    @property
    def groups(self) -> tuple[UnitGroup, ...]:
        """Size and price of every sublayer's units."""
        return tuple(sublayer.group for sublayer in self.sublayers)

    @property
    def family(self) -> BlockSignature:
        """The layout of the blocks."""
        return self.sublayers[0].family

    @property
    def reads_sums(self) -> bool:
        """Whether residual sums say what output projections should give: not where norms stand between, nor of two streams."""
        return self.crossing is None and all(sublayer.inner is None for sublayer in self.sublayers)

    def plain_trace(self, hidden: Float[Tensor, "b s d"], real: Bool[Tensor, "b s"]) -> Trace | None:
        """Give the trace of a batch whose embeddings are known, where blocks need no more than which tokens are real."""
        return Trace(hidden, (BlockContext(real),) * len(self.blocks)) if self.family.plain else None

    def trace(self, inputs: Mapping[str, Tensor]) -> Trace:
        """Run the model's own code around its blocks, which pass their hidden states on as they are."""
        hidden: list[Tensor] = []
        calls: list[dict[str, object]] = []

        def stand_in(block: nn.Module, returns: int) -> Callable[..., object]:
            names = list(inspect.signature(block.forward).parameters)

            def pass_on(*args: object, **kwargs: object) -> object:
                given = dict(zip(names, args, strict=False)) | kwargs
                entered = cast("Tensor", given.pop(names[0]))
                hidden.append(entered)
                calls.append({name: _without_cache(value) for name, value in given.items()})
                if len(calls) == len(self.blocks) or self.family.plain:
                    raise _BlocksReached
                return (entered, *[None] * (returns - 1)) if returns else entered

            return pass_on

        with ExitStack() as stack:
            for sublayer in self.sublayers:
                if sublayer.is_first:
                    stack.enter_context(_replaced_forward(sublayer.block, stand_in(sublayer.block, sublayer.family.returns)))
            try:
                self.model(**inputs)
            except _BlocksReached:
                real = real_tokens(inputs, hidden[0].shape[1])
                return self.plain_trace(hidden[0], real) or self._trace(hidden, calls, inputs)
        raise UnsupportedArchitecture("the model's forward pass never reaches its blocks", param="model")

    def _trace(self, hidden: Sequence[Tensor], calls: Sequence[dict[str, object]], inputs: Mapping[str, Tensor]) -> Trace:
        first = self.crossing
        start = None if first is None else self.sublayers[first].layer
        for sublayer in self.sublayers:  # a bias that the first block makes for the others, which it was kept from
            compute = getattr(sublayer.module, "compute_bias", None)
            if sublayer.is_first and sublayer.layer in (0, start) and compute is not None:
                length = hidden[sublayer.layer].shape[1]
                bias = compute(length, length, device=hidden[0].device)
                for call in calls[sublayer.layer :]:
                    call["position_bias"] = bias
        contexts = [
            BlockContext(real_tokens(inputs, entered.shape[1], decodes=start is not None and layer >= start), call)
            for layer, (entered, call) in enumerate(zip(hidden, calls, strict=True))
        ]
        return Trace(hidden[0], tuple(contexts), None if start is None else hidden[start])

    def crossed(self, trace: Trace, memory: Float[Tensor, "b s d"]) -> Trace:
        """Give what a batch brings to the blocks of a decoder, now that the encoder's output is known."""
        assert trace.decoder is not None, "only a decoder after an encoder is crossed to"
        contexts = tuple(context.reading(memory) for context in trace.contexts)
        return Trace(trace.decoder, contexts)

    def blocks_forward(self, trace: Trace) -> Float[Tensor, "b s d"]:
        """Run all blocks through the sublayers."""
        hidden = trace.hidden
        for index, sublayer in enumerate(self.sublayers):
            if index == self.crossing:
                trace = self.crossed(trace, self.memory(hidden))
                hidden = trace.hidden
            with held(sublayer.block):
                hidden = sublayer.forward(hidden, trace.contexts[sublayer.layer])
        return hidden

    def block_forward(self, layer: int, trace: Trace) -> object:
        """Run one block on what would enter the first one of its stack: for its time, which does not depend on the values."""
        start = None if self.crossing is None else self.sublayers[self.crossing].layer
        decodes = start is not None and layer >= start
        hidden = trace.decoder if decodes and trace.decoder is not None else trace.hidden
        return self.blocks[layer](hidden, **trace.contexts[layer].kwargs)

    @contextmanager
    def reading_sums(self, keep: Callable[[int, Tensor], None]) -> Generator[None]:
        """Hand over the input of the first block as number 0 and every residual sum from 1 on, while the context is open.

        A sum is read where it goes next: into the norm after it, into the norm before the next sublayer, or out of the block.
        """

        def at_input(place: int) -> Callable[..., None]:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
                keep(place, args[0] if args else kwargs["hidden_states"])

            return hook

        def at_output(place: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
                keep(place, output if isinstance(output, Tensor) else output[0])

            return hook

        with ExitStack() as stack:

            def watch(module: nn.Module, place: int) -> None:
                stack.callback(module.register_forward_pre_hook(at_input(place), with_kwargs=True).remove)

            watch(self.first_block, 0)
            for place, sublayer in enumerate(self.sublayers, 1):
                following = self.sublayers[place] if place < len(self.sublayers) else None
                if sublayer.after is not None:
                    watch(sublayer.after, place)
                elif following is not None and following.block is sublayer.block and following.before is not None:
                    watch(following.before, place)
                else:
                    stack.callback(sublayer.block.register_forward_hook(at_output(place)).remove)
            yield


class _BlocksReached(Exception):  # a jump out of the model's forward, not an error
    pass


@contextmanager
def _replaced_forward(block: nn.Module, forward: Callable[..., object]) -> Generator[None]:
    """Let a block do something else while the context is open; an attribute of the instance goes before the class's."""
    own = block.__dict__.get("forward")
    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        del block.__dict__["forward"]
        if own is not None:
            block.__dict__["forward"] = own


def _without_cache(value: object) -> object:
    """Leave caches of keys and values out: a block that runs twice would find its own tokens there."""
    from transformers.cache_utils import Cache

    return None if isinstance(value, Cache) else value


def real_tokens(inputs: Mapping[str, Tensor], length: int, *, decodes: bool = False) -> Bool[Tensor, "b s"]:
    """Tell which tokens are real, of a batch as the model is given it.

    A decoder that is given no tokens of its own reads the encoder's. Where there is no mask, as with images, all are real.

    Args:
        inputs: What the model is given.
        length: Tokens of a sequence.
        decodes: Whether the decoder's tokens are meant.
    """
    name = "decoder_attention_mask" if decodes and "decoder_input_ids" in inputs else "attention_mask"
    mask = inputs.get(name)
    if mask is not None:
        return mask.bool()
    some = next(iter(inputs.values()))
    return torch.ones(some.shape[0], length, dtype=torch.bool, device=some.device)


def _holder(model: nn.Module, block: nn.Module) -> tuple[nn.ModuleList, nn.Module]:
    """Find the list that a block is in, and the module that has it."""
    return next(
        (child, module)
        for module in model.modules()
        for child in module.children()
        if isinstance(child, nn.ModuleList) and block in list(child)
    )


def adapt(model: PreTrainedModel) -> ModelAdapter:
    """Find the blocks of a model by their structure.

    Raises:
        UnsupportedArchitecture: No signature fits, or something is known against the model.
    """
    config = {"model_type": model.config.model_type, **vars(model.config)}
    for signature in SIGNATURES if reason_against(config) is None else ():
        decoder = signature.decoder
        others = [] if decoder is None else [module for module in model.modules() if _matches(module, decoder)]
        own = [module for module in model.modules() if module not in others and _matches(module, signature)]
        if own and (decoder is None or others) and _ends_right(model, own[0], signature):
            places = [(block, signature) for block in own] + [(block, decoder) for block in others if decoder is not None]
            found_sublayers = [
                sublayer_of(block, layer, family, sublayer)
                for layer, (block, family) in enumerate(places)
                for sublayer in family.sublayers
            ]
            return ModelAdapter(model, tuple(block for block, _ in places), tuple(found_sublayers))
    raise unsupported(config)


def _ends_right(model: PreTrainedModel, block: nn.Module, signature: BlockSignature) -> bool:
    """Tell whether the norm that is to end an encoder is there."""
    return signature.memory is None or isinstance(get(_holder(model, block)[1], signature.memory), nn.Module)


def clone(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model whose sublayers will be sliced; parameters are shared with the original until then.

    Slicing gives a sublayer weights of its own. Only the bias of its output projection is changed in place and not sliced.
    """
    own = {id(sublayer.output.bias) for sublayer in adapt(model).sublayers}
    shared = {id(p): p for p in model.parameters() if id(p) not in own}
    return copy.deepcopy(model, cast("dict[int, object]", shared))


def drop_blocks_(model: PreTrainedModel, mask: Mask) -> tuple[int, ...]:
    """Remove in place every block of which the mask keeps no head: attention over no head has no shape, so all of it goes.

    Returns:
        Indices of the sublayers that stay, as they were counted before.
    """
    adapter = adapt(model)
    heads: dict[int, int] = {}
    for sublayer, count in zip(adapter.sublayers, mask.counts(), strict=True):
        if sublayer.signature.kind == "head":
            heads[sublayer.layer] = heads.get(sublayer.layer, 0) + count
    gone = [layer for layer, count in heads.items() if not count]
    if gone:
        blocks, _ = _holder(model, adapter.first_block)
        for layer in reversed(gone):
            del blocks[layer]
        for layer, block in enumerate(blocks):
            for module in block.modules():  # caches of keys and values are found by it
                if hasattr(module, "layer_idx"):
                    setattr(module, "layer_idx", layer)  # noqa: B010 - torch types attributes as tensors
    return tuple(index for index, sublayer in enumerate(adapter.sublayers) if sublayer.layer not in gone)


def slice_(model: PreTrainedModel, mask: Mask) -> None:
    """Remove in place everything that the mask does not keep, repairing nothing."""
    survivors = drop_blocks_(model, mask)
    for index, sublayer in zip(survivors, adapt(model).sublayers, strict=True):
        with held(sublayer.block):
            sublayer.slice_(mask.indices(index).to(model.device))


def _matches(module: nn.Module, signature: BlockSignature) -> bool:
    linears = [path for sublayer in signature.sublayers for path in (*(rows.path for rows in sublayer.inputs), sublayer.output)]
    norms = [path for sublayer in signature.sublayers for path in sublayer.norms] + list(signature.marks)
    found = [get(module, path) for path in linears]
    if signature.flag is not None and getattr(module, signature.flag[0], None) != signature.flag[1]:
        return False
    return all(is_linear(linear) and is_transposed(linear) == signature.transposed for linear in found) and all(
        isinstance(get(module, path), nn.Module) for path in norms
    )
