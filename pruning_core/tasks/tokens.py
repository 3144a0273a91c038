"""Token classification (named entities and the like), and the base class of all tasks with logits for every token.

A token is counted if it has a label other than `UNCOUNTED`; losses and metrics leave the other tokens out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from pruning_core.errors import DatasetInvalid
from pruning_core.shapes import Bool, Float
from pruning_core.tasks.base import Judged, Observed, TaskFamily, collect_, encoded_by, portions, uniforms
from pruning_core.tasks.batch import UNCOUNTED, Batch, TokenLabelled
from pruning_core.tasks.classification import kl, labels
from pruning_core.tasks.scoring import Tags, share_alike, tag_accuracy
from pruning_core.tasks.vocabulary import LARGE, kl_of_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pruning_core.data.rows import Rows


class PerToken(TaskFamily):
    """Tasks whose outputs are logits for every token, and whose labels say which tokens are counted."""

    # How many tokens after an output its label stands: 1 for causal language models, whose label is the next token.
    shift = 0

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the cross-entropy, summed over the counted tokens: the negative log-likelihood of the sample."""
        logits, truth = self.aligned(outputs, labels(batch))
        return token_losses(logits, truth).sum(-1)

    def probes(self, outputs: Tensor, batch: Batch, seed: int) -> Float[Tensor, " b"]:
        """Draw a label for each counted token from the model's own prediction, and compute the loss of these labels.

        ``E_{y~p} (d log p(y))^2`` is the true Fisher. The labels of tokens are drawn independently, so the cross terms of a
        sample's sum vanish in expectation. This costs one draw a token, however many classes there are; a factor of each
        token's Fisher would cost the square of their number.
        """
        truth = torch.where(batch.real, 0, UNCOUNTED) if batch.labels is None else batch.labels
        logits, truth = self.aligned(outputs, truth)
        drawn = sampled(logits.detach(), uniforms(truth.shape[1], batch, seed))
        return token_losses(logits, torch.where(truth == UNCOUNTED, UNCOUNTED, drawn)).sum(-1)

    def answers(self, batch: Batch) -> Float[Tensor, " b"]:
        """Return the number of counted tokens of each sample, at least 1."""
        return self.counted(batch).sum(-1).clamp_min(1).float()

    def divergences(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the mean KL divergence over the counted tokens."""
        counted = self.counted(batch)
        ours, theirs = ours[:, : counted.shape[1]], theirs[:, : counted.shape[1]]
        apart = kl_of_tokens(ours, theirs) if ours.shape[-1] >= LARGE else kl(ours, theirs)
        return (apart * counted).sum(-1) / counted.sum(-1).clamp_min(1)

    def counted(self, batch: Batch) -> Bool[Tensor, "b s"]:
        """Return which outputs have a counted label; without labels, those of real tokens."""
        truth = batch.real if batch.labels is None else batch.labels != UNCOUNTED
        return truth[:, self.shift :]

    def aligned(self, outputs: Float[Tensor, "b s c"], truth: Tensor) -> tuple[Tensor, Tensor]:
        """Align outputs with their labels, each (batch, s - shift, ...)."""
        return outputs[:, : outputs.shape[1] - self.shift], truth[:, self.shift :]


class TokenClassification(PerToken):
    """A class for each word, read at the word's first token."""

    example = (("one", "two", "three"), ("four",))
    tokenizer_options = MappingProxyType({"is_split_into_words": True})

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> TokenLabelled:
        """Make one sample of each row. The later tokens of a word, and special tokens, are not counted.

        Raises:
            DatasetInvalid: The tokenizer is not a fast one.
        """
        if not tokenizer.is_fast:
            raise DatasetInvalid(
                "token-classification needs a fast tokenizer, which tells the word of each token; put tokenizer.json beside "
                "the weights",
                param="model",
            )
        assert rows.labels is not None, "the spec requires a label column for this task type"
        columns: dict[str, list[array[int]]] = {}
        counted: list[array[int]] = []
        for start, part in portions(rows.texts):
            encoded = encoded_by(tokenizer, self.columns_of(part), limit, **self.tokenizer_options)
            collect_(columns, tokenizer, encoded)
            for row in range(len(part)):
                tags = cast("tuple[int, ...]", rows.labels[start + row])
                counted.append(_first_pieces(encoded.word_ids(row), tags))
        return TokenLabelled(tokenizer, columns, None, counted)

    def condense(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Yield the likeliest class of each counted token."""
        for own, truth in zip(outputs.argmax(-1), labels(batch), strict=True):
            yield own[truth != UNCOUNTED]

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the classes of the counted words with their tags."""
        del finding
        assert isinstance(seen.encoded, TokenLabelled), "it is what this family makes"
        truth = [torch.tensor([tag for tag in own if tag != UNCOUNTED]) for own in seen.encoded.token_labels]
        dense, pruned = (Tags(outputs, truth, seen.rows.names) for outputs in (seen.dense, seen.pruned))
        details = {
            "agreement_with_dense": share_alike(pruned.found, dense.found),
            "token_accuracy": tag_accuracy(pruned),
            "counted_tokens": float(sum(map(len, truth))),
        }
        return Judged(dense, pruned, len(seen.dense), details)

    def columns_of(self, texts: Sequence[tuple[str, ...]]) -> list[list[Any]]:
        """Return one column: a row is one text, already split into words."""
        return [[list(own) for own in texts]]


def _first_pieces(words: Sequence[int | None], tags: Sequence[int]) -> array[int]:
    """Label the first token of each word with the word's tag."""
    before = [None, *words[:-1]]
    return array(
        "l", [UNCOUNTED if word is None or word == last else tags[word] for last, word in zip(before, words, strict=True)]
    )


def token_losses(logits: Float[Tensor, "b s c"], truth: Tensor) -> Float[Tensor, "b s"]:
    """Compute the cross-entropy of every token; 0 where it is not counted."""
    return nn.functional.cross_entropy(logits.transpose(1, 2), truth, reduction="none", ignore_index=UNCOUNTED)


def sampled(logits: Float[Tensor, "b s c"], uniform: Float[Tensor, "b s"]) -> Tensor:
    """Draw classes from the softmax of logits, by numbers that are uniform in [0, 1)."""
    cumulated = logits.float().softmax(-1).cumsum(-1)
    at = uniform.to(cumulated)[..., None] * cumulated[..., -1:]
    return torch.searchsorted(cumulated, at).squeeze(-1).clamp_max(logits.shape[-1] - 1)
