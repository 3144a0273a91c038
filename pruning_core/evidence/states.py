"""What is kept of the dense model between passes: its residual sums, as far as a memory budget goes.

Recovery fits every sublayer of the student to the dense model's residual stream ``x + f(x)``. The scoring pass computes that
stream anyway. Kept, it saves recovery a whole teacher pass; where it does not fit, recovery lets the dense model run beside
the student, batch by batch, and pays for it in time instead of memory. Either way the numbers are the same up to the rounding
of the format they are kept in.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.evidence.cache import ActivationCache
from pruning_core.shapes import Float
from pruning_core.tasks.batch import Batch


@dataclass(frozen=True, slots=True)
class StatePlan:
    """How hidden states are kept.

    Attributes:
        dtype: float32, or float16 where float32 does not fit: 11 significant bits, of values that LayerNorm keeps small.
        batches: Number of batches, the first ones, whose dense states are kept from the scoring pass.
        streams: Bytes that the streams of recovery may take of the budget; what they need beyond lies in a file.
        bytes: What all of that takes at most.
        spare: What the budget leaves for a sublayer's features, which else are computed twice.
    """

    dtype: torch.dtype
    batches: int
    streams: int
    bytes: int
    spare: int


def plan_states(tokens: Sequence[int], hidden: int, sublayers: int, budget: int, *, keeps_sums: bool = True) -> StatePlan:
    """Decide what is kept.

    Args:
        tokens: Of each batch, padding included.
        hidden: Width of the residual stream.
        sublayers: Number of sublayers; a kept batch has one sum each, and its embeddings.
        budget: Bytes that may be kept. Recovery's own streams come first: two, and one where the dense model's states are kept.
        keeps_sums: Whether residual sums are of use to the model's recovery; else the dense model always runs beside it.
    """
    total = sum(tokens)
    for dtype in (torch.float32, torch.float16):
        stream = total * hidden * dtype.itemsize
        everything = stream * (sublayers + 2)  # every sum, the embeddings, and the student's stream
        if keeps_sums and everything <= budget:
            return StatePlan(dtype, len(tokens), stream, everything, budget - everything)
    streams = used = min(2 * stream, budget)
    batches = 0
    for count in tokens if keeps_sums else ():
        # A kept batch's embeddings take the place of its teacher stream.
        more = count * sublayers * hidden * torch.float16.itemsize
        if used + more > budget:
            break
        used += more
        batches += 1
    return StatePlan(torch.float16, batches, streams, used, budget - used)


class DenseStates:
    """The dense model's states on the calibration batches, recorded while some other pass runs it."""

    def __init__(self, adapter: ModelAdapter, batches: Sequence[Batch], budget: int, scratch: Path | None = None) -> None:
        """Plan for batches of known sizes; nothing is allocated yet.

        Args:
            adapter: The dense model.
            batches: Calibration batches.
            budget: Bytes of memory for what is kept.
            scratch: Folder for what recovery must keep beyond the budget; the system's temporary folder when None.
        """
        self._adapter = adapter
        self._hidden = adapter.groups[0].hidden
        self._tokens = [batch.real.numel() for batch in batches]
        self.plan = plan_states(self._tokens, self._hidden, len(adapter.sublayers), budget, keeps_sums=adapter.reads_sums)
        self._scratch = scratch
        self._block: Tensor | None = None  # of all kept batches: freed as a whole, it goes back to the system
        self._embedded: dict[int, Tensor] = {}
        self._sums: dict[int, list[Tensor]] = {}

    def cache(self) -> ActivationCache:
        """Give the place for recovery's streams."""
        numbers = 2 * sum(self._tokens) * self._hidden
        room = self.plan.streams // self.plan.dtype.itemsize
        return ActivationCache(numbers, room, self.plan.dtype, self._adapter.model.device, self._scratch)

    def release(self) -> None:
        """Forget what was kept: no recovery follows."""
        self._block = None
        self._embedded.clear()
        self._sums.clear()

    @contextmanager
    def recording(self, index: int) -> Generator[None]:
        """Keep the states of batch ``index`` while the dense model runs it inside the context, if the plan has room for it."""
        if index >= self.plan.batches:
            yield
            return
        block = self._room_for(index)
        kept: dict[int, Tensor] = {}

        def keep(place: int, hidden: Tensor) -> None:
            shape = kept[0].shape if kept else hidden.shape  # some models lay the tokens of all sequences in one row
            kept[place] = block[place].view(shape).copy_(hidden.detach().view(shape))

        with self._adapter.reading_sums(keep):
            yield
        self._embedded[index] = kept[0]
        self._sums[index] = [kept[place] for place in range(1, len(kept))]

    def _room_for(self, index: int) -> Float[Tensor, "p n d"]:
        """Give a batch's part of the block: its embeddings and its sums, (sublayers + 1, tokens, d)."""
        places = len(self._adapter.sublayers) + 1
        if self._block is None:
            rows = places * sum(self._tokens[: self.plan.batches])
            self._block = torch.empty(rows, self._hidden, dtype=self.plan.dtype, device=self._adapter.model.device)
        start, count = places * sum(self._tokens[:index]), places * self._tokens[index]
        return self._block[start : start + count].view(places, -1, self._hidden)

    def embedded(self, index: int) -> Float[Tensor, "b s d"] | None:
        """Give the input of the first block; None where it was not kept."""
        return self._embedded.get(index)

    def sums(self, index: int) -> Sequence[Float[Tensor, "b s d"]] | None:
        """Give ``x + f(x)`` of every sublayer, before the norm that may follow; None where they were not kept."""
        return self._sums.get(index)
