"""What tests compare with: statistics by their definition, masks as multiplications, groups of plain layers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.sublayer import get
from pruning_core.arch.unit_costs import RowCount, UnitGroup, unit_group
from pruning_core.stats.gram import Gram


def gram_of(X: Tensor, B: Tensor) -> Gram:
    """Compute the statistics of all rows at once: products in the format of X."""
    return Gram((X.T @ X).double(), (X.T @ B.to(X.dtype)).double(), float(B.double().square().sum()), X.shape[0])


@contextmanager
def masked(adapter: ModelAdapter, masks: tuple[Tensor, ...]) -> Generator[None]:
    """Multiply each unit by its mask at the input of the output projection, while the context is open.

    Where experts are masked, their router must not choose them either.
    """
    with ExitStack() as stack:
        for sublayer, mask in zip(adapter.sublayers, masks, strict=True):
            if sublayer.signature.mixture is not None:
                stack.enter_context(_unchosen(get(sublayer.block, sublayer.signature.mixture.router), mask))
            hook = _multiply(mask.repeat_interleave(sublayer.unit_width))
            stack.callback(sublayer.output.register_forward_pre_hook(hook).remove)
        yield


def _multiply(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda _module, args: (args[0] * mask, *args[1:])


@contextmanager
def _unchosen(router: nn.Module, mask: Tensor) -> Generator[None]:
    """Let a router rank the masked experts behind all others, by the model's own code."""
    linear = functional.linear

    def ranked(*args, **kwargs):
        logits = linear(*args, **kwargs)
        return logits.masked_fill(mask == 0, -torch.inf) if args[1] is router.weight else logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "linear", ranked)
        yield


def head_group(layer: int, *, heads: int, head_size: int, hidden: int) -> UnitGroup:
    """Describe the heads of one attention sublayer, each with a query, a key and a value of its own."""
    rows = [RowCount(head_size, bias=True)] * 3
    return unit_group(layer, "head", units=heads, unit_width=head_size, hidden=hidden, inputs=rows)


def neuron_group(layer: int, *, neurons: int, hidden: int) -> UnitGroup:
    """Describe the neurons of one FFN without a gate."""
    return unit_group(layer, "neuron", units=neurons, unit_width=1, hidden=hidden, inputs=[RowCount(1, bias=True)])
