"""Token batches: drawing the calibration samples, and batching by length so that padding costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import torch

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.data.rows import Rows
from pruning_core.spec.prune import CalibrationSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch, Encoded


@dataclass(frozen=True, slots=True)
class TokenSet:
    """Tokenised samples in batches, with their statistics for reports.

    Attributes:
        batches: Batches of sequences of similar length.
        samples: Number of sequences.
        tokens: Number of real tokens in all of them.
        mean_length: Mean real length, in tokens, of all rows that the samples were chosen from; MACs are counted at it.
        fingerprint: Hash of the exact token ids.
    """

    batches: Sequence[Batch]
    samples: int
    tokens: int
    mean_length: float
    fingerprint: str


# Largest size of a batch's logits: half a gigabyte in float32 on a CPU, four on a GPU.
_LOGITS = {"cpu": 2**27}
_LOGITS_ELSEWHERE = 2**30


def evaluation_tokens(device: torch.device, entries: int = 1) -> int:
    """Return the tokens in a batch at which a plain forward pass is fastest: CPU caches are small, a GPU must be filled.

    Args:
        device: Where the model runs.
        entries: Size of the output for every token: large vocabularies leave room for fewer tokens.
    """
    fastest = 1024 if device.type == "cpu" else 16_384
    return max(64, min(fastest, _LOGITS.get(device.type, _LOGITS_ELSEWHERE) // entries))


def batch_tokens_for(groups: Sequence[UnitGroup], device: torch.device, options: CalibrationSpec, entries: int) -> int:
    """Return the tokens in a batch of the scoring pass: what suits the device, within the memory of the backward pass.

    For every token the backward pass holds, in float32 at the worst: in each block the inputs of its norms, the query, key,
    value and context of its heads, and its neurons before and after the activation; the logits, their softmax and its gradient.
    """
    held = 4 * (3 * entries + sum(2 * group.hidden + 3 * group.size * group.unit_width for group in groups))
    room = options.memory_mb * 2**20 // 2 // held
    return max(64, options.max_length, min(evaluation_tokens(device, entries), room))


def draw(rows: Rows, samples: int, generator: torch.Generator) -> Rows:
    """Draw rows without replacement; return all rows, shuffled, if there are fewer than samples."""
    return rows.take(torch.randperm(len(rows), generator=generator)[:samples].tolist())


def tokenise(model: TaskModel, rows: Rows, *, max_length: int, batch_tokens: int, longest: int | None = None) -> TokenSet:
    """Tokenise rows into samples, as the model's task defines them, and batch them by length.

    Args:
        model: Its task defines a sample; its tokenizer makes the tokens.
        rows: Inputs and labels.
        max_length: Length in tokens at which samples are truncated.
        batch_tokens: See `batched`.
        longest: Use only this many of the longest samples, in the order of the rows; None: use all.

    Raises:
        DatasetInvalid: The rows yield no sample.
    """
    encoded = model.family.encode(model, rows, model.longest(max_length))
    return batched(encoded, batch_tokens=batch_tokens, chosen=longest_of(encoded.lengths, longest))


def longest_of(lengths: Sequence[int], count: int | None) -> list[int]:
    """Return the indices of so many of the longest samples, in the order of the rows; None: of all."""
    return sorted(sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))[:count])


class _OnDemand(Sequence[Batch]):
    """Batches that are made at each access."""

    def __init__(self, make: Callable[[Sequence[int]], Batch], members: Sequence[Sequence[int]]) -> None:
        self._make, self._members = make, members

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(index, slice):
            return _OnDemand(self._make, self._members[index])
        return self._make(self._members[index])


def batched(encoded: Encoded, *, batch_tokens: int, chosen: Sequence[int] | None = None, keep: bool = True) -> TokenSet:
    """Batch samples by length.

    Samples are sorted by length (ties by row), then packed greedily so that ``batch * longest <= batch_tokens``.

    Args:
        encoded: The samples.
        batch_tokens: Upper bound of a batch's tokens, padding included; a single longer sample still makes a batch.
        chosen: Indices of the samples to use, ascending; None: all.
        keep: Make all batches now and keep them; otherwise a batch is made at each access.
    """
    everything = encoded.lengths
    chosen = range(len(everything)) if chosen is None else chosen
    lengths = [everything[i] for i in chosen]
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    members = [[order[i] for i in run] for run in pack([lengths[i] for i in order], batch_tokens)]

    def make(index: Sequence[int]) -> Batch:
        return replace(encoded.batch([chosen[i] for i in index]), rows=torch.tensor(index))

    batches = [make(index) for index in members] if keep else _OnDemand(make, members)
    mean = sum(everything) / len(everything)
    return TokenSet(batches, len(lengths), sum(lengths), mean, encoded.fingerprint(chosen))


def pack(lengths: Sequence[int], batch_tokens: int) -> list[range]:
    """Split ascending lengths into runs, each of whose size times its longest length is at most ``batch_tokens``."""
    runs: list[range] = []
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop == len(lengths) or (stop + 1 - start) * lengths[stop] > batch_tokens:
            runs.append(range(start, stop))
            start = stop
    return runs
