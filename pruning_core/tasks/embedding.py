"""Sentence embeddings, judged by their fidelity to the dense model's or by how well their cosines rank pairs of sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pruning_core.shapes import Float, Int
from pruning_core.tasks.base import Judged, Observed, TaskFamily, signs, tokenised
from pruning_core.tasks.batch import Batch, Encoded
from pruning_core.tasks.embedder import Embedder
from pruning_core.tasks.scoring import Embeddings, Scores, cosine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.utils.generic import ModelOutput

    from pruning_core.data.rows import Rows
    from pruning_core.tasks.base import TaskModel

# Nearest neighbours are searched among at most this many sentences: the cost is quadratic.
_NEIGHBOUR_LIMIT = 4096


@dataclass(frozen=True)
class Compared(Encoded):
    """Samples whose embeddings are compared as the model's users do.

    Attributes:
        similarities: Gives one number for each pair of embeddings.
    """

    similarities: Callable[[Tensor, Tensor], Tensor] = torch.nn.functional.cosine_similarity


class Embedding(TaskFamily):
    """Feature extraction: the embedding of each text that `encode` of sentence-transformers gives; no labels."""

    reads = ("last_hidden_state",)
    softens = False

    def encode(self, model: TaskModel, rows: Rows, limit: int) -> Encoded:
        """Turn rows into samples, behind the model's default prompt.

        Raises:
            DatasetInvalid: No row makes a sample.
            ModelUnreadable: The tokenizer makes tokens that the model does not have.
        """
        if _embedder(model).recipe.prompt:
            rows = dataclasses.replace(rows, texts=tuple(self.prompted(model, texts) for texts in rows.texts))
        found = super().encode(model, rows, limit)
        return Compared(found.tokenizer, found.columns, found.labels, similarities=_embedder(model).similarities)

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Make one sample of each row."""
        return Encoded(tokenizer, tokenised(tokenizer, rows.texts, limit), None)

    def prompted(self, model: TaskModel, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Put the model's default prompt in front of a row's text."""
        return _embedder(model).prompted(texts)

    def probe_inputs(self, model: TaskModel, texts: Sequence[tuple[str, ...]], length: int) -> Batch:
        """Prepare texts as `encode` does: behind the model's default prompt."""
        return super().probe_inputs(model, [_embedder(model).prompted(own) for own in texts], length)

    def read(self, model: TaskModel, result: ModelOutput, inputs: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """Make the embeddings of token states."""
        return _embedder(model).embed(cast("Tensor", cast("Any", result).last_hidden_state), inputs)

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Raise: embeddings have no labels to compute a loss from."""
        del outputs, batch
        raise AssertionError("embeddings have no labels")

    def naive_loss(self, model: TaskModel, batches: Sequence[Batch]) -> float:
        """Return half the squared distance of two orthogonal embeddings of the usual length."""
        if _embedder(model).unit:
            return 1.0
        with torch.no_grad():
            squares = [model.outputs(batch.to(model.device).inputs).square().sum(-1) for batch in batches]
        return float(torch.cat(squares).mean()) if squares else 1.0

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
        before, after = _directions(seen)
        details = {"nearest_neighbour_agreement": nearest_neighbour_agreement(before, after)}
        return Judged(Embeddings(before, before), Embeddings(after, before), len(before), details)


class Similarity(Embedding):
    """Sentence similarity: pairs with a score. The two sentences of a pair are two consecutive samples."""

    def prompted(self, model: TaskModel, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Put the model's default prompt in front of each sentence of a pair."""
        return tuple(_embedder(model).prompted((text,))[0] for text in texts)

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Make two samples of each row."""
        return Encoded(tokenizer, tokenised(tokenizer, [(text,) for pair in rows.texts for text in pair], limit), None)

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the cosine of each pair of sentences with its score."""
        del finding
        before, after = torch.stack(list(seen.dense)), torch.stack(list(seen.pruned))
        assert isinstance(seen.encoded, Compared), "this family encodes the samples"
        compare = seen.encoded.similarities
        assert seen.rows.labels is not None, "the spec requires a label column for this task type"
        truth = torch.tensor(seen.rows.labels).double()
        dense, pruned = (Scores(compare(own[::2], own[1::2]), truth) for own in (before, after))
        directions = Embeddings(*reversed(_directions(seen)))
        return Judged(dense, pruned, len(seen.rows), {"cosine_to_dense": cosine(directions)})

    def probe_texts(self, texts: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
        """Choose the first sentence of each pair."""
        return tuple((pair[0],) for pair in texts)


def _embedder(model: TaskModel) -> Embedder:
    assert model.embedder is not None, "a model is loaded with an embedder for these tasks"
    return model.embedder


def _directions(seen: Observed) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Return the embeddings of both models, in unit length."""
    before, after = (torch.nn.functional.normalize(torch.stack(list(own)), dim=-1) for own in (seen.dense, seen.pruned))
    return before, after


def nearest_neighbour_agreement(dense: Float[Tensor, "n d"], pruned: Float[Tensor, "n d"]) -> float:
    """Compute the share of sentences whose nearest other sentence (by cosine) is the same in both embeddings."""
    dense, pruned = dense[:_NEIGHBOUR_LIMIT], pruned[:_NEIGHBOUR_LIMIT]
    if len(dense) < 2:
        return 1.0
    return float((_nearest(dense) == _nearest(pruned)).double().mean())


def _nearest(embeddings: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    similarity = embeddings @ embeddings.T
    return similarity.fill_diagonal_(-torch.inf).argmax(-1)
