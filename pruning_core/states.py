"""What is kept of the dense model between passes: its residual sums, as far as a memory budget goes.

Recovery fits every sublayer of the student to the dense model's residual stream ``x + f(x)``. The scoring pass computes that
stream anyway. Kept, it saves recovery a whole teacher pass; where it does not fit, recovery lets the dense model run beside
the student, batch by batch, and pays for it in time instead of memory. Either way the numbers are the same up to the rounding
of the format they are kept in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning_core.arch.encoder import EncoderAdapter
from pruning_core.calibration import Batch
from pruning_core.shapes import Float


@dataclass(frozen=True, slots=True)
class StatePlan:
    """How hidden states are kept.

    Attributes:
        dtype: float32, or float16 where float32 does not fit: 11 significant bits, of values that LayerNorm keeps small.
        batches: Number of batches, the first ones, whose dense states are kept from the scoring pass.
        bytes: What all kept states take at most: those, and the streams of recovery.
        spare: What the budget leaves for a sublayer's features, which else are computed twice.
    """

    dtype: torch.dtype
    batches: int
    bytes: int
    spare: int


def plan_states(tokens: Sequence[int], hidden: int, sublayers: int, budget: int) -> StatePlan:
    """Decide what is kept.

    Args:
        tokens: Of each batch, padding included.
        hidden: Width of the residual stream.
        sublayers: Number of sublayers; a kept batch has one sum each, and its embeddings.
        budget: Bytes that may be kept. The least that recovery needs, two streams in float16, may be more: it is taken anyway.
    """
    total = sum(tokens)
    everything = total * hidden * (sublayers + 2)  # every sum, the embeddings, and the student's stream
    for dtype in (torch.float32, torch.float16):
        if everything * dtype.itemsize <= budget:
            used = everything * dtype.itemsize
            return StatePlan(dtype, len(tokens), used, budget - used)
    per_token = hidden * torch.float16.itemsize
    # Two streams where nothing is kept; a kept batch needs no teacher stream.
    used, batches = 2 * total * per_token, 0
    for count in tokens:
        more = count * sublayers * per_token
        if used + more > budget:
            break
        used += more
        batches += 1
    return StatePlan(torch.float16, batches, used, max(0, budget - used))


class Pool:
    """One block of memory, handed out piece by piece.

    Thousands of pieces of half a megabyte, each allocated between a pass's own temporaries, would leave as much again in holes
    of the heap.
    """

    def __init__(self, numbers: int, dtype: torch.dtype, device: torch.device) -> None:
        """Allocate for so many numbers."""
        self._left = torch.empty(numbers, dtype=dtype, device=device)

    def keep(self, values: Tensor) -> Tensor:
        """Copy values into the pool's own format."""
        piece, self._left = self._left.split([values.numel(), self._left.numel() - values.numel()])
        return piece.view(values.shape).copy_(values)


class DenseStates:
    """The dense model's states on the calibration batches, recorded while some other pass runs it."""

    def __init__(self, adapter: EncoderAdapter, batches: Sequence[Batch], budget: int) -> None:
        """Plan for batches of known sizes; nothing is allocated yet."""
        self._adapter = adapter
        self._hidden = adapter.groups[0].hidden
        self._tokens = [batch.inputs["attention_mask"].numel() for batch in batches]
        self.plan = plan_states(self._tokens, self._hidden, len(adapter.sublayers), budget)
        self._embedded: dict[int, Tensor] = {}
        self._sums: dict[int, list[Tensor]] = {}

    @contextmanager
    def recording(self, index: int) -> Generator[None]:
        """Keep the states of batch ``index`` while the dense model runs it inside the context, if the plan has room for it."""
        if index >= self.plan.batches:
            yield
            return
        sums: list[Tensor] = []
        tokens = self._tokens[index] * self._hidden
        pool = Pool((len(self._adapter.sublayers) + 1) * tokens, self.plan.dtype, self._adapter.model.device)
        with ExitStack() as stack:
            for sublayer in self._adapter.sublayers:
                handle = sublayer.norm.register_forward_pre_hook(_append(sums, pool))
                stack.callback(handle.remove)

            def keep_embedded(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
                hidden = args[0] if args else kwargs["hidden_states"]
                self._embedded[index] = pool.keep(hidden.detach())

            handle = self._adapter.first_block.register_forward_pre_hook(keep_embedded, with_kwargs=True)
            stack.callback(handle.remove)
            yield
        self._sums[index] = sums

    def embedded(self, index: int) -> Float[Tensor, "b s d"] | None:
        """Give the input of the first block; None where it was not kept."""
        return self._embedded.get(index)

    def sums(self, index: int) -> Sequence[Float[Tensor, "b s d"]] | None:
        """Give ``x + f(x)`` of every sublayer, before its norm; None where they were not kept."""
        return self._sums.get(index)


def _append(sums: list[Tensor], pool: Pool) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        sums.append(pool.keep(args[0].detach()))

    return hook
