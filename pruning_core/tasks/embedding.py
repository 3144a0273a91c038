"""Sentence embeddings, judged by their fidelity to the dense model's or by how well their cosines rank pairs of sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pruning_core.shapes import Float, Int
from pruning_core.tasks.base import Judged, Observed, TaskFamily, signs, tokenised
from pruning_core.tasks.batch import Batch, Encoded
from pruning_core.tasks.scoring import Embeddings, Scores, cosine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.utils.generic import ModelOutput

    from pruning_core.data.rows import Rows
    from pruning_core.tasks.base import TaskModel

# Nearest neighbours are searched among at most this many sentences: the cost is quadratic.
_NEIGHBOUR_LIMIT = 4096


class Embedding(TaskFamily):
    """Feature extraction: one embedding of unit length for each text; no labels."""

    reads = ("last_hidden_state",)
    softens = False

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Make one sample of each row."""
        return Encoded(tokenizer, tokenised(tokenizer, rows.texts, limit), None)

    def read(self, model: TaskModel, result: ModelOutput, inputs: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """Pool token states and scale them to unit length, as sentence-transformers does."""
        hidden = cast("Tensor", cast("Any", result).last_hidden_state)
        if model.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1)

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Raise: embeddings have no labels to compute a loss from."""
        del outputs, batch
        raise AssertionError("embeddings have no labels")

    def naive_loss(self, model: TaskModel, batches: Sequence[Batch]) -> float:
        """Return half the squared distance of two orthogonal embeddings."""
        del model, batches
        return 1.0

    def probes(self, outputs: Tensor, batch: Batch, seed: int) -> Float[Tensor, " b"]:
        """Project the embedding on random signs: the Gauss-Newton form of the squared distance."""
        return (outputs * signs(outputs, batch, seed)).sum(-1)

    def divergences(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the squared distance of the embeddings."""
        del batch
        return (ours - theirs).square().sum(-1)

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the embeddings with the dense model's."""
        del finding
        before, after = torch.stack(list(seen.dense)), torch.stack(list(seen.pruned))
        details = {"nearest_neighbour_agreement": nearest_neighbour_agreement(before, after)}
        return Judged(Embeddings(before, before), Embeddings(after, before), len(before), details)


class Similarity(Embedding):
    """Sentence similarity: pairs with a score. The two sentences of a pair are two consecutive samples."""

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Make two samples of each row."""
        return Encoded(tokenizer, tokenised(tokenizer, [(text,) for pair in rows.texts for text in pair], limit), None)

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the cosine of each pair of sentences with its score."""
        del finding
        before, after = torch.stack(list(seen.dense)), torch.stack(list(seen.pruned))
        assert seen.rows.labels is not None, "the spec requires a label column for this task type"
        truth = torch.tensor(seen.rows.labels).double()
        dense, pruned = (Scores((own[::2] * own[1::2]).sum(-1), truth) for own in (before, after))
        return Judged(dense, pruned, len(seen.rows), {"cosine_to_dense": cosine(Embeddings(after, before))})

    def probe_texts(self, texts: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
        """Choose the first sentence of each pair."""
        return tuple((pair[0],) for pair in texts)


def nearest_neighbour_agreement(dense: Float[Tensor, "n d"], pruned: Float[Tensor, "n d"]) -> float:
    """Compute the share of sentences whose nearest other sentence (by cosine) is the same in both embeddings."""
    dense, pruned = dense[:_NEIGHBOUR_LIMIT], pruned[:_NEIGHBOUR_LIMIT]
    if len(dense) < 2:
        return 1.0
    return float((_nearest(dense) == _nearest(pruned)).double().mean())


def _nearest(embeddings: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    similarity = embeddings @ embeddings.T
    return similarity.fill_diagonal_(-torch.inf).argmax(-1)
