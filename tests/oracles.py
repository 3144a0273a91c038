"""What tests compare with: statistics by their definition, masks as multiplications, groups of plain layers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.unit_costs import RowCount, UnitGroup, unit_group
from pruning_core.stats.gram import Gram


def gram_of(X: Tensor, B: Tensor) -> Gram:
    """Compute the statistics of all rows at once: products in the format of X."""
    return Gram((X.T @ X).double(), (X.T @ B.to(X.dtype)).double(), float(B.double().square().sum()), X.shape[0])


@contextmanager
def masked(adapter: ModelAdapter, masks: tuple[Tensor, ...]) -> Generator[None]:
    """Multiply each unit by its mask at the input of the output projection, while the context is open."""
    with ExitStack() as stack:
        for sublayer, mask in zip(adapter.sublayers, masks, strict=True):
            hook = _multiply(mask.repeat_interleave(sublayer.unit_width))
            stack.callback(sublayer.output.register_forward_pre_hook(hook).remove)
        yield


def _multiply(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda _module, args: (args[0] * mask, *args[1:])


def head_group(layer: int, *, heads: int, head_size: int, hidden: int) -> UnitGroup:
    """Describe the heads of one attention sublayer, each with a query, a key and a value of its own."""
    rows = [RowCount(head_size, bias=True)] * 3
    return unit_group(layer, "head", units=heads, unit_width=head_size, hidden=hidden, inputs=rows)


def neuron_group(layer: int, *, neurons: int, hidden: int) -> UnitGroup:
    """Describe the neurons of one FFN without a gate."""
    return unit_group(layer, "neuron", units=neurons, unit_width=1, hidden=hidden, inputs=[RowCount(1, bias=True)])
