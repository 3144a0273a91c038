"""Hidden states of the dense model that are kept between passes: its residual sums, within a memory budget.

Recovery fits every sublayer of the student to the dense model's residual stream ``x + f(x)``, which the scoring pass computes
anyway. A stream that is kept saves recovery a whole teacher pass. For batches that do not fit, recovery runs the dense model
beside the student, which costs time instead of memory. Both ways give the same numbers, up to the rounding of the format in
which states are kept.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.evidence.cache import ActivationCache, stored_
from pruning_core.kept.piece import Piece
from pruning_core.shapes import Float
from pruning_core.tasks.batch import Batch


@dataclass(frozen=True, slots=True)
class StatePlan:
    """Plan of which hidden states are kept, and in which format.

    Attributes:
        dtype: float32; or, if that does not fit, float16: 11 significant bits, of values that LayerNorm keeps small. Tensors
            with values that are beyond float16 lie in bfloat16.
        batches: Number of batches, from the first, whose dense states are kept from the scoring pass.
        streams: Bytes of the budget for recovery's own streams; beyond it they lie in a file.
        bytes: Bytes of the kept states and the streams together, at most.
        spare: Bytes that the budget leaves for a sublayer's features, which would otherwise be computed twice.
    """

    dtype: torch.dtype
    batches: int
    streams: int
    bytes: int
    spare: int


def plan_states(tokens: Sequence[int], hidden: int, sublayers: int, budget: int, *, keeps_sums: bool = True) -> StatePlan:
    """Plan which states to keep.

    Args:
        tokens: Tokens of each batch, padding included.
        hidden: Width of the hidden states between sublayers.
        sublayers: Number of sublayers. A kept batch has one residual sum for each, and its embeddings.
        budget: Bytes that may be kept. Recovery's streams come first: two for a batch, one if its dense states are kept.
        keeps_sums: Whether the model's recovery can use residual sums; if not, the dense model always runs beside it.
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
    """The dense model's states on the calibration batches, recorded while another pass runs the model."""

    def __init__(self, adapter: ModelAdapter, batches: Sequence[Batch], budget: int, scratch: Path | None = None) -> None:
        """Plan what to keep of the batches; nothing is allocated yet.

        Args:
            adapter: The dense model.
            batches: Calibration batches.
            budget: Bytes of memory for kept states.
            scratch: Folder for recovery's streams beyond the budget; None: the system's temporary folder.
        """
        self._adapter = adapter
        self._hidden = adapter.stream_width
        self._tokens = [batch.real.numel() * adapter.times for batch in batches]
        self.plan = plan_states(self._tokens, self._hidden, len(adapter.sublayers), budget, keeps_sums=adapter.reads_sums)
        self._scratch = scratch
        self._block: Tensor | None = None  # one for all kept batches: freed as a whole, it goes back to the system
        self._embedded: dict[int, Tensor] = {}
        self._sums: dict[int, list[Tensor]] = {}

    def cache(self) -> ActivationCache:
        """Return a new cache for recovery's streams."""
        numbers = 2 * sum(self._tokens) * self._hidden
        room = self.plan.streams // self.plan.dtype.itemsize
        return ActivationCache(numbers, room, self.plan.dtype, self._adapter.model.device, self._scratch)

    @property
    def recorded(self) -> bool:
        """Whether the states of all batches that the plan has room for are there."""
        return len(self._sums) == self.plan.batches

    @property
    def key(self) -> dict[str, object]:
        """What the states depend on beside model and samples, as JSON: the batches, and what of them is kept."""
        return {"tokens": self._tokens, "batches": self.plan.batches, "dtype": str(self.plan.dtype)}

    def piece(self) -> Piece:
        """Return all recorded states, for a later run."""
        assert self._block is not None, "states were recorded"
        placed = [[self._embedded[index], *self._sums[index]] for index in range(self.plan.batches)]
        beyond = [
            [at, place] for at, own in enumerate(placed) for place, kept in enumerate(own) if kept.dtype != self.plan.dtype
        ]
        return Piece({"block": self._block}, {"shapes": [list(own[0].shape) for own in placed], "beyond": beyond})

    def restore(self, piece: Piece) -> None:
        """Take the states of an earlier run, as `piece` has returned them."""
        self._block = piece.tensors["block"].to(self._adapter.model.device)
        beyond = {tuple(own) for own in piece.facts["beyond"]}
        for index, shape in enumerate(piece.facts["shapes"]):
            room = self._room_for(index)
            found = [
                (own.view(torch.bfloat16) if (index, place) in beyond else own).view(shape) for place, own in enumerate(room)
            ]
            self._embedded[index], self._sums[index] = found[0], found[1:]

    def release(self) -> None:
        """Free the kept states; no recovery follows."""
        self._block = None
        self._embedded.clear()
        self._sums.clear()

    @contextmanager
    def recording(self, index: int) -> Generator[None]:
        """Record the states of batch ``index``, which the dense model runs inside the context, if the plan has room for it."""
        if index >= self.plan.batches:
            yield
            return
        block = self._room_for(index)
        kept: dict[int, Tensor] = {}

        def keep(place: int, hidden: Tensor) -> None:
            shape = kept[0].shape if kept else hidden.shape  # some models lay the tokens of all sequences in one row
            kept[place] = stored_(block[place].view(shape), hidden.detach().view(shape), self.plan.dtype)

        with self._adapter.reading_sums(keep):
            yield
        self._embedded[index] = kept[0]
        self._sums[index] = [kept[place] for place in range(1, len(kept))]

    def _room_for(self, index: int) -> Float[Tensor, "p n d"]:
        """Return a batch's part of the block, for its embeddings and its sums: (sublayers + 1, tokens, d)."""
        places = len(self._adapter.sublayers) + 1
        if self._block is None:
            rows = places * sum(self._tokens[: self.plan.batches])
            self._block = torch.empty(rows, self._hidden, dtype=self.plan.dtype, device=self._adapter.model.device)
        start, count = places * sum(self._tokens[:index]), places * self._tokens[index]
        return self._block[start : start + count].view(places, -1, self._hidden)

    def embedded(self, index: int) -> Float[Tensor, "b s d"] | None:
        """Return the input of the first block; None if it was not kept."""
        return self._embedded.get(index)

    def sums(self, index: int) -> Sequence[Float[Tensor, "b s d"]] | None:
        """Return ``x + f(x)`` of every sublayer, before the norm that may follow; None if they were not kept."""
        return self._sums.get(index)
