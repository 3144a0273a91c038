"""The model adapter: a model's blocks, found by their structure and split into sublayers that run on their own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.experts import is_stacked
from pruning_core.arch.families import SIGNATURES
from pruning_core.arch.linear import is_linear, is_transposed
from pruning_core.arch.paging import held
from pruning_core.arch.refused import reason_against, unsupported
from pruning_core.arch.signatures import BlockSignature, Mixture
from pruning_core.arch.sublayer import BlockContext, Sublayer, get, is_absent, sublayer_of
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.shapes import Bool, Float

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pruning_core.arch.linear import AnyLinear


@dataclass(frozen=True, slots=True)
class Trace:
    """One batch as it enters the blocks: hidden states, and the other arguments of every block.

    Attributes:
        hidden: Input of the first block, (batch, length, d).
        contexts: The other arguments of each block, one context a block.
        decoder: Input of the first decoder block; None where no decoder follows an encoder.
    """

    hidden: Float[Tensor, "b s d"]
    contexts: tuple[BlockContext, ...]
    decoder: Float[Tensor, "b t d"] | None = None


@dataclass(frozen=True, slots=True)
class ModelAdapter:
    """The blocks of a model and their sublayers, in the order in which they run: attention 0, FFN 0, attention 1, ...

    An attention that a block lacks is none of the sublayers.
    A decoder's blocks follow its encoder's. Each has its cross-attention between self-attention and FFN.
    """

    model: PreTrainedModel
    blocks: tuple[nn.Module, ...]
    sublayers: tuple[Sublayer, ...]

    @property
    def crossing(self) -> int | None:
        """Index of the first decoder sublayer; None where no decoder follows an encoder."""
        return next((i for i, own in enumerate(self.sublayers) if own.family is self.family.decoder), None)

    def memory(self, hidden: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Return the encoder's output that decoder blocks read, given the output of its last block."""
        if self.family.memory is None:
            return hidden
        _, stack = holder(self.model, self.first_block)
        return cast("nn.Module", get(stack, self.family.memory))(hidden)

    @property
    def paths(self) -> dict[nn.Module, str]:
        """Module path of every module of the model."""
        return {module: path for path, module in self.model.named_modules()}

    @property
    def linears(self) -> dict[str, AnyLinear]:
        """The linears of the blocks by module path, in the order in which they are pruned."""
        paths = self.paths
        return {paths[linear]: linear for sublayer in self.sublayers for linear in (*sublayer.inputs, sublayer.output)}

    @property
    def written(self) -> frozenset[str]:
        """Paths of the linears that read the decoder's own tokens, where a decoder follows an encoder."""
        paths, first = self.paths, self.crossing
        own = () if first is None else self.sublayers[first:]
        inputs = (part.linear for sublayer in own for part in sublayer.parts if not part.reads_memory)
        return frozenset(paths[linear] for linear in (*inputs, *(sublayer.output for sublayer in own)))

    def held_linears(self) -> Iterator[tuple[str, AnyLinear]]:
        """Yield the pairs of `linears` one by one. The weights of a linear are present while its pair is in use."""
        paths = self.paths
        for sublayer in self.sublayers:
            with held(sublayer.block):
                yield from ((paths[linear], linear) for linear in (*sublayer.inputs, sublayer.output))

    @property
    def first_block(self) -> nn.Module:
        """The block that reads the embeddings."""
        return self.blocks[0]

    @property
    def openings(self) -> tuple[Sublayer, ...]:
        """The first sublayer of every block, in the order of the blocks."""
        found: dict[int, Sublayer] = {}
        for sublayer in self.sublayers:
            found.setdefault(sublayer.layer, sublayer)
        return tuple(found.values())

    @property
    def absent(self) -> dict[str, str]:
        """Module paths of the attentions that blocks lack, each with that of the norm before it."""
        paths, found = self.paths, dict[str, str]()
        for own in self.openings:
            for signature in own.family.sublayers:
                if is_absent(own.block, signature) and signature.before is not None:
                    attention, norm = get(own.block, signature.module), get(own.block, signature.before)
                    found[paths[cast("nn.Module", attention)]] = paths[cast("nn.Module", norm)]
        return found

    @property
    def groups(self) -> tuple[UnitGroup, ...]:
        """The unit group of every sublayer: number and cost of its units."""
        return tuple(sublayer.group for sublayer in self.sublayers)

    @property
    def family(self) -> BlockSignature:
        """Signature of the blocks; the encoder's where a decoder follows."""
        return self.sublayers[0].family

    @property
    def reads_sums(self) -> bool:
        """Whether the residual sums determine the targets of the output projections, and are there to be read.

        They do not where a norm stands between projection and sum, nor where there are two residual streams. Where sublayers
        stand side by side, no module reads the sum of the first one alone; where something stands behind a block, its sums do
        not say what comes next; and one block that runs for all layers has sums for each.
        """
        one_by_one = self.crossing is None and not self._carries and self.times == 1
        return one_by_one and all(sublayer.inner is None for sublayer in self.sublayers)

    @property
    def times(self) -> int:
        """How often the model runs its blocks: more than once where one block runs for all layers."""
        return self.sublayers[0].times

    @property
    def stream_width(self) -> int:
        """Width of the hidden states between sublayers, at most: what a block was given is kept where the next one reads it."""
        return self.groups[0].hidden * (2 if self._carries else 1)

    @property
    def _carries(self) -> bool:
        """Whether what a block was given is read behind its first sublayer."""
        return self.family.parallel or any(sublayer.joint is not None for sublayer in self.sublayers)

    def plain_trace(self, hidden: Float[Tensor, "b s d"], real: Bool[Tensor, "b s"]) -> Trace | None:
        """Return the trace of a batch from its embeddings; None where blocks need more than the mask of real tokens."""
        return Trace(hidden, (BlockContext(real),) * len(self.blocks)) if self.family.plain else None

    def trace(self, inputs: Mapping[str, Tensor]) -> Trace:
        """Compute the trace of a batch by running the model's own code around its blocks.

        Each block is replaced by a stand-in, which records its arguments and passes its hidden states on unchanged.

        Raises:
            UnsupportedArchitecture: The forward pass ends before it has reached the blocks.
        """
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
            for sublayer in self.openings:
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
        for sublayer in self.openings:  # the first block computes the position bias of its stack (T5); its stand-in did not
            compute = getattr(sublayer.module, "compute_bias", None)
            if sublayer.layer in (0, start) and compute is not None:
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
        """Return the trace of a decoder's blocks, given the encoder's output."""
        assert trace.decoder is not None, "only a decoder after an encoder is crossed to"
        contexts = tuple(context.reading(memory) for context in trace.contexts)
        return Trace(trace.decoder, contexts)

    def blocks_forward(self, trace: Trace) -> Float[Tensor, "b s d"]:
        """Run all blocks, sublayer by sublayer, and return the last hidden states."""
        *_, last = self.passes(trace)
        return self._once(last, trace)

    def passes(self, trace: Trace) -> Iterator[Float[Tensor, "b s d"]]:
        """Yield what the first block reads: once, or where one block runs for all layers, what it reads for each of them."""
        hidden = trace.hidden
        yield hidden
        for _ in range(1, self.times):
            hidden = self._once(hidden, trace)
            yield hidden

    def _once(self, hidden: Float[Tensor, "b s d"], trace: Trace) -> Float[Tensor, "b s d"]:
        for index, sublayer in enumerate(self.sublayers):
            if index == self.crossing:
                trace = self.crossed(trace, self.memory(hidden))
                hidden = trace.hidden
            with held(sublayer.block):
                hidden = sublayer.forward(hidden, trace.contexts[sublayer.layer])
        return hidden

    def block_forward(self, layer: int, trace: Trace) -> object:
        """Run one block on the input of the first block of its stack.

        The result serves to time the block only, since its time does not depend on the values.
        """
        start = None if self.crossing is None else self.sublayers[self.crossing].layer
        decodes = start is not None and layer >= start
        hidden = trace.decoder if decodes and trace.decoder is not None else trace.hidden
        return self.blocks[layer](hidden, **trace.contexts[layer].kwargs)

    @contextmanager
    def reading_sums(self, keep: Callable[[int, Tensor], None]) -> Generator[None]:
        """Pass the first block's input (number 0) and every residual sum (from 1 on) to ``keep`` while the context is open.

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
    """Replace a block's forward while the context is open. An attribute of the instance takes precedence over the class's."""
    own = block.__dict__.get("forward")
    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        del block.__dict__["forward"]
        if own is not None:
            block.__dict__["forward"] = own


def _without_cache(value: object) -> object:
    """Replace a key-value cache by None, since a block that runs twice would find its own tokens in it."""
    from transformers.cache_utils import Cache

    return None if isinstance(value, Cache) else value


def real_tokens(inputs: Mapping[str, Tensor], length: int, *, decodes: bool = False) -> Bool[Tensor, "b s"]:
    """Return the mask of real tokens of a batch.

    A decoder without tokens of its own reads the encoder's tokens. All tokens are real where the batch has no mask, as with
    images.

    Args:
        inputs: The model's arguments.
        length: Tokens of a sequence.
        decodes: Whether to return the mask of the decoder's tokens.
    """
    name = "decoder_attention_mask" if decodes and "decoder_input_ids" in inputs else "attention_mask"
    mask = inputs.get(name)
    if mask is not None:
        return mask.bool()
    some = next(iter(inputs.values()))
    return torch.ones(some.shape[0], length, dtype=torch.bool, device=some.device)


def holder(model: nn.Module, block: nn.Module) -> tuple[nn.ModuleList, nn.Module]:
    """Find the module list that contains a block, and the module that owns the list."""
    return next(
        (child, module)
        for module in model.modules()
        for child in module.children()
        if isinstance(child, nn.ModuleList) and block in list(child)
    )


def adapt(model: PreTrainedModel) -> ModelAdapter:
    """Find the blocks of a model by their structure.

    Raises:
        UnsupportedArchitecture: No signature fits, or the model type is refused by name.
    """
    config = {"model_type": model.config.model_type, **vars(model.config)}
    for signature in SIGNATURES if reason_against(config) is None else ():
        decoder = signature.decoder
        others = [] if decoder is None else [module for module in model.modules() if _matches(module, decoder)]
        own = [module for module in model.modules() if module not in others and _matches(module, signature)]
        if own and (decoder is None or others) and _ends_right(model, own[0], signature):
            places = [(block, signature) for block in own] + [(block, decoder) for block in others if decoder is not None]
            joint = _joint_of(model, own[0], signature)
            found_sublayers = [
                replace(sublayer_of(block, layer, family, sublayer), joint=joint if layer == 0 else None)
                for layer, (block, family) in enumerate(places)
                for sublayer in family.sublayers
                if not is_absent(block, sublayer)
            ]
            return ModelAdapter(model, tuple(block for block, _ in places), tuple(found_sublayers))
    raise unsupported(config)


def _ends_right(model: PreTrainedModel, block: nn.Module, signature: BlockSignature) -> bool:
    """Return whether the encoder ends in the norm that its signature names, if it names one."""
    return signature.memory is None or isinstance(get(holder(model, block)[1], signature.memory), nn.Module)


def _joint_of(model: PreTrainedModel, block: nn.Module, signature: BlockSignature) -> nn.Module | None:
    """Return what stands behind the first block, if there is something."""
    return None if signature.joint is None else cast("nn.Module | None", get(holder(model, block)[1], signature.joint))


def clone(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model whose sublayers will be sliced. Parameters are shared with the original until then.

    Slicing replaces the parameters of a sublayer by new tensors. Only the biases of output projections are not sliced but
    changed in place, so they are copied here.
    """
    own = {id(sublayer.output.bias) for sublayer in adapt(model).sublayers}
    shared = {id(p): p for p in model.parameters() if id(p) not in own}
    return copy.deepcopy(model, cast("dict[int, object]", shared))


def _has_experts(module: nn.Module, mixture: Mixture) -> bool:
    """Return whether a block has a mixture of experts at the given paths."""
    router, shared = (
        get(module, mixture.router),
        getattr(get(module, mixture.experts.rpartition(".")[0]), "shared_expert", None),
    )
    return (
        is_stacked(get(module, mixture.experts))
        and isinstance(getattr(router, "weight", None), nn.Parameter)
        and hasattr(router, "top_k")
        and (shared is None) == (mixture.shared is None)
    )


def _matches(module: nn.Module, signature: BlockSignature) -> bool:
    there = [own for own in signature.sublayers if not (signature.lacks_attention and is_absent(module, own))]
    plain = [own for own in there if own.mixture is None]
    linears = [path for sublayer in plain for path in (*(rows.path for rows in sublayer.inputs), sublayer.output)]
    norms = [path for sublayer in there for path in sublayer.norms] + list(signature.marks)
    found = [get(module, path) for path in linears]
    if not all(_has_experts(module, own.mixture) for own in there if own.mixture is not None):
        return False
    if signature.flag is not None and get(module, signature.flag[0]) != signature.flag[1]:
        return False
    return all(is_linear(linear) and is_transposed(linear) == signature.transposed for linear in found) and all(
        isinstance(get(module, path), nn.Module) for path in norms
    )
