"""Verification of a model adapter: its sublayers must compute what the model computes, on real inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import cast

import torch
from torch import Tensor, nn

from pruning_core.arch.adapter import ModelAdapter, Trace
from pruning_core.arch.experts import Spread
from pruning_core.arch.paging import held
from pruning_core.arch.refused import SUPPORTED
from pruning_core.arch.signatures import Mixture
from pruning_core.arch.sublayer import BlockContext, Sublayer, get
from pruning_core.errors import NotFinite, UnsupportedArchitecture
from pruning_core.machine.resources import raise_if_exhausted

# Relative difference allowed between two ways of computing the same values.
_TOLERANCE = 1e-4


def verify(adapter: ModelAdapter, inputs: Mapping[str, Tensor]) -> None:
    """Check on real inputs that the sublayers compute what the model's blocks compute, and that cutting equals masking.

    A model may have the modules of a known structure and still compute something else: norms at other places, layers between
    the blocks, heads in another order. Such a model is caught here, before anything is built on it.

    Raises:
        UnsupportedArchitecture: The results differ, or the blocks cannot be run one by one.
        NotFinite: A block of the model itself gives NaN or infinity on these inputs.
    """
    try:
        _verify(adapter, inputs)
    except (UnsupportedArchitecture, NotFinite):
        raise
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:  # from the model's own code
        raise_if_exhausted(error, "the model was tried on calibration samples")
        what = str(error).strip().splitlines()
        raise UnsupportedArchitecture(
            f"model type {adapter.model.config.model_type!r} has the modules of the family {adapter.family.family!r}, but its "
            f"blocks cannot be run one by one on the task's inputs ({what[0][:120] if what else type(error).__name__}); "
            f"{SUPPORTED}",
            param="model",
        ) from error


def _verify(adapter: ModelAdapter, inputs: Mapping[str, Tensor]) -> None:
    reached: list[Tensor] = []
    finite: dict[int, Tensor] = {}  # tokens of each block at which its output is

    def keep(index: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            reached[:] = [output if isinstance(output, Tensor) else output[0]]
            finite[index] = reached[0].isfinite().all(-1)

        return hook

    with ExitStack() as stack, torch.no_grad():
        for index, block in enumerate(adapter.blocks):
            stack.callback(block.register_forward_hook(keep(index)).remove)
        adapter.model(**inputs)
    with torch.no_grad():
        trace = adapter.trace(inputs)
        for index, own in sorted(finite.items()):
            where = trace.contexts[index].real
            if not bool((own[where] if own.shape == where.shape else own).all()):
                raise NotFinite(
                    f"block {index + 1} of the model's {len(adapter.blocks)} gives NaN or infinity on the longest calibration "
                    "samples, and no result can be made of that",
                    param="model",
                )
        real = trace.contexts[-1].real  # of the last block, whose output is compared
        error = _relative_error(adapter.blocks_forward(trace)[real], reached[0][real])
        if not error < _TOLERANCE:
            raise _different(adapter, error)
        if not adapter.family.plain:
            _verify_cuts(adapter, trace)


def _verify_cuts(adapter: ModelAdapter, trace: Trace) -> None:
    """Check that removing every other unit of a sublayer gives the same as masking these units."""
    hidden = trace.hidden
    for index, sublayer in enumerate(adapter.sublayers):
        if index == adapter.crossing:
            trace = adapter.crossed(trace, adapter.memory(hidden))
            hidden = trace.hidden
        with held(sublayer.block):
            hidden = _verify_cut(adapter, sublayer, hidden, trace.contexts[sublayer.layer])


def _verify_cut(adapter: ModelAdapter, sublayer: Sublayer, hidden: Tensor, context: BlockContext) -> Tensor:
    """Check one sublayer, and return the hidden states after it."""
    features = sublayer.features(hidden, context)
    if sublayer.signature.mixture is not None:
        _verify_experts(adapter, sublayer, sublayer.signature.mixture, hidden)
        return sublayer.leave(hidden, sublayer.total(hidden, features), context)
    if sublayer.group.floor == sublayer.units:
        return sublayer.leave(hidden, sublayer.total(hidden, features), context)
    kept = torch.arange(0, sublayer.units, 2, device=hidden.device)
    flags = torch.zeros(sublayer.units, device=hidden.device).index_fill_(0, kept, 1.0)
    masked = sublayer.output(features * flags.repeat_interleave(sublayer.unit_width))
    cut = sublayer.copied()
    cut.slice_(kept)
    error = _relative_error(cut.output(cut.features(hidden, context)), masked)
    if not error < _TOLERANCE:
        raise _different(adapter, error)
    return sublayer.leave(hidden, sublayer.total(hidden, features), context)


def _verify_experts(adapter: ModelAdapter, sublayer: Sublayer, mixture: Mixture, hidden: Tensor) -> None:
    """Check that a mixture without some experts chooses among the others as the router ranks them, and adds what they add."""
    units, floor = sublayer.units, sublayer.group.floor
    kept = torch.arange(units, device=hidden.device)[units - max(floor, units // 2) :]
    cut = sublayer.copied()
    cut.slice_(kept)
    read = sublayer.read(hidden)
    called: list[tuple[Tensor, ...]] = []
    experts = cast("nn.Module", get(cut.block, mixture.experts))
    with experts.register_forward_pre_hook(lambda _module, args: called.append(args)):
        added = cut.features(hidden, BlockContext(torch.ones(0)))
    rows, chosen, gates = called[0]
    ranked = cast("nn.Module", get(sublayer.block, mixture.router))(read.flatten(0, -2))[0][:, kept].topk(floor).indices
    whole = cast("Spread", sublayer.output)
    error = _relative_error(cut.output(added.flatten(0, -2)), whole(whole.features(rows, kept[chosen], gates)))
    if not error < _TOLERANCE or not bool((ranked.sort().values == chosen.sort().values).all()):
        raise _different(adapter, error)


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm().clamp_min(torch.finfo(theirs.dtype).tiny)).item()


def _different(adapter: ModelAdapter, error: float) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"the model has the modules of a model of the family {adapter.family.family!r} but computes something else (relative "
        f"difference {error:.1e})",
        param="model",
    )
