"""Token batches: drawing the calibration samples, and bucketing by length so that padding costs next to nothing."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pruning_core.cost import UnitGroup
from pruning_core.data import Rows
from pruning_core.spec import CalibrationSpec, TaskType

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Rows that are tokenised at a time.
_PORTION = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of similar length.

    Attributes:
        inputs: What the model takes, each (batch, length).
        rows: Index of each sequence in the sample order, (batch,).
        labels: (batch,), class indices or floats; None where there are none.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    labels: Tensor | None

    @property
    def real(self) -> Tensor:
        """True at real tokens, (batch, length)."""
        return self.inputs["attention_mask"].bool()

    def to(self, device: torch.device) -> Batch:
        """Copy to a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return Batch({name: t.to(device) for name, t in self.inputs.items()}, self.rows.to(device), labels)


@dataclass(frozen=True, slots=True)
class TokenSet:
    """Tokenised samples in batches, with what reports say of them.

    Attributes:
        batches: Sequences of similar length together.
        samples: Number of sequences.
        tokens: Real tokens of all of them.
        mean_length: Mean real length of the rows that the samples were chosen from: the task's, by which MACs are counted.
        fingerprint: Hash of the exact token ids.
    """

    batches: tuple[Batch, ...]
    samples: int
    tokens: int
    mean_length: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokenised rows that are not batched yet.

    Attributes:
        tokenizer: Pads.
        columns: For each of the model's inputs the values of every row, without padding.
        labels: (rows,), class indices or floats; None where there are none.
    """

    tokenizer: PreTrainedTokenizerBase
    columns: Mapping[str, Sequence[array[int]]]
    labels: Tensor | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, rows: Rows, task_type: TaskType, *, max_length: int) -> Encoded:
        """Tokenise rows; the task's type decides that of the labels."""
        dtype = torch.long if task_type == "text-classification" else torch.float32
        labels = None if rows.labels is None else torch.tensor(rows.labels).to(dtype)
        return cls(tokenizer, _encode(tokenizer, rows, min(max_length, tokenizer.model_max_length)), labels)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(ids) for ids in self.columns["input_ids"]]

    def batch(self, index: Sequence[int]) -> Batch:
        """Pad some rows together."""
        columns = {name: [values[i].tolist() for i in index] for name, values in self.columns.items()}
        padded = self.tokenizer.pad(columns, return_tensors="pt")
        picked = torch.tensor(index)
        return Batch({name: padded[name] for name in columns}, picked, None if self.labels is None else self.labels[picked])

    def fingerprint(self, index: Sequence[int]) -> str:
        """Hash the exact token ids of some rows."""
        digest = hashlib.sha256()
        for ids in (self.columns["input_ids"][i] for i in index):
            digest.update(torch.tensor([len(ids), *ids], dtype=torch.int32).numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


def evaluation_tokens(device: torch.device) -> int:
    """Give the tokens a batch at which a plain forward is fastest: a CPU's caches are small, a GPU wants to be filled."""
    return 1024 if device.type == "cpu" else 16_384


def batch_tokens_for(groups: Sequence[UnitGroup], device: torch.device, options: CalibrationSpec) -> int:
    """Give the tokens a batch of the scoring pass: what suits the device, within the memory for what its backward pass holds.

    Of every token a block holds, in float32 at the worst: the inputs of its norms and the query, key, value and context of its
    heads, and its neurons before and after the activation.
    """
    held = 4 * sum(2 * group.hidden + 3 * group.size * group.unit_width for group in groups)
    room = options.memory_mb * 2**20 // 2 // held
    return max(64, options.max_length, min(evaluation_tokens(device), room))


def draw(rows: Rows, samples: int, generator: torch.Generator) -> Rows:
    """Draw samples without replacement; all of them, shuffled, where there are fewer."""
    order = torch.randperm(len(rows), generator=generator)[:samples].tolist()
    return Rows(
        texts=tuple(rows.texts[i] for i in order),
        labels=None if rows.labels is None else tuple(rows.labels[i] for i in order),
    )


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    task_type: TaskType,
    *,
    max_length: int,
    batch_tokens: int,
    longest: int | None = None,
) -> TokenSet:
    """Tokenise rows and batch them by length.

    Sequences are sorted by length (ties by row), then packed greedily so that ``batch * longest <= batch_tokens``.

    Args:
        tokenizer: The model's tokenizer.
        rows: Texts and labels.
        task_type: Decides the type of the labels.
        max_length: Truncation, in tokens.
        batch_tokens: Upper bound of a batch, padding included; a single longer sequence still makes a batch.
        longest: Use only this many of the longest sequences, in the rows' order; all of them when None.
    """
    encoded = Encoded.of(tokenizer, rows, task_type, max_length=max_length)
    everything = encoded.lengths
    chosen = sorted(sorted(range(len(everything)), key=lambda i: (-everything[i], i))[:longest])
    lengths = [everything[i] for i in chosen]
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[Batch] = []
    for members in pack([lengths[i] for i in order], batch_tokens):
        index = [order[i] for i in members]
        batch = encoded.batch([chosen[i] for i in index])
        batches.append(replace(batch, rows=torch.tensor(index)))
    mean = sum(everything) / len(everything)
    return TokenSet(tuple(batches), len(lengths), sum(lengths), mean, encoded.fingerprint(chosen))


def _encode(tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> dict[str, list[array[int]]]:
    """Tokenise in portions and keep only the numbers: a tokenizer's own records of long texts fill hundreds of megabytes."""
    found: dict[str, list[array[int]]] = {}
    for start in range(0, len(rows), _PORTION):
        texts = [list(column) for column in zip(*rows.texts[start : start + _PORTION], strict=True)]
        encoded = tokenizer(texts[0], texts[1] if len(texts) > 1 else None, truncation=True, max_length=limit, padding=False)
        for name in tokenizer.model_input_names:
            if name in encoded:
                found.setdefault(name, []).extend(array("l", values) for values in encoded[name])
    return found


def pack(lengths: Sequence[int], batch_tokens: int) -> list[range]:
    """Cut ascending lengths into runs whose size times longest member stays within ``batch_tokens``."""
    runs: list[range] = []
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop == len(lengths) or (stop + 1 - start) * lengths[stop] > batch_tokens:
            runs.append(range(start, stop))
            start = stop
    return runs
