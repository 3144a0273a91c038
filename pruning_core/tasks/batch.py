"""Samples as tensors: rows read by a tokenizer or an image processor, and batches of them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pruning_core.shapes import Bool, Int

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Label of a token that no loss and no metric counts; transformers' value.
UNCOUNTED = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of similar length.

    Attributes:
        inputs: The model's inputs by name, each (batch, ...).
        rows: Index of each sample in the sample order, (batch,).
        labels: (batch,) class indices or floats; (batch, classes) zeros and ones; (batch, 2) first and last token of an
            answer; or (batch, length) a class for each token, `UNCOUNTED` where it has none. None without labels.
        mask: True at real tokens (or patches), (batch, length), for inputs that have no attention mask of their own.
    """

    inputs: dict[str, Tensor]
    rows: Int[Tensor, " b"]
    labels: Tensor | None
    mask: Bool[Tensor, "b s"] | None = None

    @property
    def real(self) -> Bool[Tensor, "b s"]:
        """True at real tokens (or patches), (batch, length)."""
        return self.inputs["attention_mask"].bool() if self.mask is None else self.mask

    @property
    def written(self) -> Bool[Tensor, "b t"]:
        """True at the real tokens that the decoder reads; `real` where the inputs have no mask for the decoder."""
        mask = self.inputs.get("decoder_attention_mask")
        return self.real if mask is None else mask.bool()

    def to(self, device: torch.device) -> Batch:
        """Return a copy on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        mask = None if self.mask is None else self.mask.to(device)
        return Batch({name: t.to(device) for name, t in self.inputs.items()}, self.rows.to(device), labels, mask)


@dataclass(frozen=True)
class Encoded:
    """Samples that are not batched yet. A row may make no sample, one, or several.

    Attributes:
        tokenizer: The tokenizer, which pads batches.
        columns: For each input of the model, the values of every sample, without padding.
        labels: One entry a sample; None without labels.
        kept: Whether batches that are used more than once stay in memory; otherwise they are made anew for each use.
    """

    kept: ClassVar[bool] = True

    tokenizer: PreTrainedTokenizerBase
    columns: Mapping[str, Sequence[array[int]]]
    labels: Tensor | None

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each sample."""
        return [len(ids) for ids in self.columns["input_ids"]]

    def batch(self, index: Sequence[int]) -> Batch:
        """Make a padded batch of some samples."""
        picked = torch.tensor(index)
        return Batch(self.padded(index), picked, None if self.labels is None else self.labels[picked])

    def padded(self, index: Sequence[int]) -> dict[str, Tensor]:
        """Pad the inputs of some samples to the same length."""
        columns = {name: [values[i].tolist() for i in index] for name, values in self.columns.items()}
        padded = self.tokenizer.pad(columns, padding_side="right", return_tensors="pt")
        return {name: padded[name] for name in columns}

    def fingerprint(self, index: Sequence[int]) -> str:
        """Hash the exact token ids of some samples."""
        digest = hashlib.sha256()
        for ids in (self.columns["input_ids"][i] for i in index):
            digest.update(torch.tensor([len(ids), *ids], dtype=torch.int32).numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True)
class TokenLabelled(Encoded):
    """Samples with a label for every token."""

    token_labels: Sequence[array[int]] = ()

    @classmethod
    def unpadded(
        cls, tokenizer: PreTrainedTokenizerBase, ids: Sequence[array[int]], token_labels: Sequence[array[int]]
    ) -> TokenLabelled:
        """Make samples of tokens that are all real."""
        ones = [array("l", [1] * len(own)) for own in ids]
        return cls(tokenizer, {"input_ids": ids, "attention_mask": ones}, None, token_labels)

    def batch(self, index: Sequence[int]) -> Batch:
        """Make a padded batch of some samples and their labels."""
        return Batch(self.padded(index), torch.tensor(index), pad_labels([self.token_labels[i] for i in index]))


def pad_labels(labels: Sequence[array[int]]) -> Int[Tensor, "b s"]:
    """Pad the labels of tokens on the right with `UNCOUNTED`."""
    found = torch.full((len(labels), max(map(len, labels))), UNCOUNTED)
    for row, own in enumerate(labels):
        found[row, : len(own)] = torch.tensor(own)
    return found
