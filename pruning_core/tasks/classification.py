"""Classification and regression: one class, several classes, or a score for each text or pair of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.shapes import Float
from pruning_core.tasks.base import Judged, Observed, TaskFamily, signs, tokenised
from pruning_core.tasks.batch import Batch, Encoded
from pruning_core.tasks.scoring import Classes, Decisions, Scores, decision_f1_macro

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pruning_core.data.rows import Rows
    from pruning_core.tasks.base import TaskModel


class Classification(TaskFamily):
    """Single-label classification: one class for each text or pair."""

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Make one sample of each row."""
        return Encoded(tokenizer, tokenised(tokenizer, rows.texts, limit), self.labels_of(rows))

    def labels_of(self, rows: Rows) -> Tensor | None:
        """Return the labels of rows as a tensor; None without labels."""
        return None if rows.labels is None else torch.tensor(rows.labels).long()

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the cross-entropy."""
        return nn.functional.cross_entropy(outputs, labels(batch), reduction="none")

    def probes(self, outputs: Tensor, batch: Batch, seed: int) -> Float[Tensor, " b"]:
        """Project the logits z on ``A r``, with A a factor of their Fisher and r random signs.

        The Fisher of the logits, ``diag(p) - p p^T``, factors as ``A A^T`` with ``A = diag(sqrt p) - p sqrt(p)^T``. The
        expected squared gradient of ``z . A r`` is ``J^T A A^T J``, the true Fisher. For two classes A has rank one, and one
        probe is exact: ``sqrt(p0 p1) (z1 - z0)``.
        """
        p = outputs.detach().softmax(-1)
        if outputs.shape[-1] == 2:
            return (p[:, 0] * p[:, 1]).sqrt() * (outputs[:, 1] - outputs[:, 0])
        return (outputs * torch.einsum("bij,bj->bi", output_fisher_factor(p), signs(outputs, batch, seed))).sum(-1)

    def divergences(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the KL divergence of the class distributions."""
        del batch
        return kl(ours, theirs)

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the logits with the labels, and compute the share of rows that get the dense model's class."""
        del finding
        truth = self.labels_of(seen.rows)
        assert truth is not None, "the spec requires a label column for this task type"
        dense, pruned = (Classes(torch.stack(list(outputs)), truth) for outputs in (seen.dense, seen.pruned))
        agreement = float((dense.found == pruned.found).double().mean())
        return Judged(dense, pruned, len(seen.rows), {"agreement_with_dense": agreement})


class MultiLabel(Classification):
    """Multi-label classification: a yes or no for each class of each text."""

    def labels_of(self, rows: Rows) -> Tensor | None:
        """Return labels as zeros and ones, (rows, classes); None without labels."""
        if rows.labels is None:
            return None
        found = torch.zeros(len(rows), len(rows.names))
        for row, own in enumerate(rows.labels):
            found[row, [int(index) for index in cast("tuple[int, ...]", own)]] = 1
        return found

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the binary cross-entropy, summed over the classes."""
        return nn.functional.binary_cross_entropy_with_logits(outputs, labels(batch), reduction="none").sum(-1)

    def naive_loss(self, model: TaskModel, batches: Sequence[Batch]) -> float:
        """Return the loss of probability 1/2 for every class."""
        del batches
        return math.log(2) * len(model.classes)

    def probes(self, outputs: Tensor, batch: Batch, seed: int) -> Float[Tensor, " b"]:
        """Sum the logits, each times the root of its class's Fisher ``p (1 - p)`` and a random sign."""
        p = outputs.detach().sigmoid()
        return (outputs * (p * (1 - p)).sqrt() * signs(outputs, batch, seed)).sum(-1)

    def divergences(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the KL divergence of each class's yes or no, summed over the classes."""
        del batch
        p = theirs.sigmoid()
        logsigmoid = nn.functional.logsigmoid
        yes, no = logsigmoid(theirs) - logsigmoid(ours), logsigmoid(-theirs) - logsigmoid(-ours)
        return (p * yes + (1 - p) * no).sum(-1)

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the classes of probability above 1/2 with the labels."""
        del finding
        truth = self.labels_of(seen.rows)
        assert truth is not None, "the spec requires a label column for this task type"
        dense, pruned = (Decisions(torch.stack(list(own)) > 0, truth.bool()) for own in (seen.dense, seen.pruned))
        agreement = float((dense.found == pruned.found).double().mean())
        details = {"agreement_with_dense": agreement, "f1_macro": decision_f1_macro(pruned)}
        return Judged(dense, pruned, len(seen.rows), details)


class Regression(Classification):
    """Regression: a score for each text or pair."""

    softens = False

    def naive_loss(self, model: TaskModel, batches: Sequence[Batch]) -> float:
        """Return the squared error of always answering the mean of the model's scores: their variance."""
        with torch.no_grad():
            scores = torch.cat([model.outputs(batch.to(model.device).inputs)[:, 0].float() for batch in batches])
        return max(1e-6, float(scores.var(correction=0)))

    def labels_of(self, rows: Rows) -> Tensor | None:
        """Return the scores; None without labels."""
        return None if rows.labels is None else torch.tensor(rows.labels).float()

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the squared error."""
        return (outputs.squeeze(-1) - labels(batch)).square()

    def probes(self, outputs: Tensor, batch: Batch, seed: int) -> Float[Tensor, " b"]:
        """Return the score itself: its squared gradient is the Gauss-Newton form of the squared error."""
        del batch, seed
        return outputs.sum(-1)

    def divergences(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the squared difference of the scores."""
        del batch
        return (ours - theirs).square().sum(-1)

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the scores with the labels, and compute their correlation with the dense model's scores."""
        del finding
        truth = self.labels_of(seen.rows)
        assert truth is not None, "the spec requires a label column for this task type"
        dense, pruned = (Scores(torch.stack(list(outputs))[:, 0], truth) for outputs in (seen.dense, seen.pruned))
        return Judged(dense, pruned, len(seen.rows), {"pearson_with_dense": _pearson(dense.found, pruned.found)})


def labels(batch: Batch) -> Tensor:
    """Return the labels of a batch that has labels."""
    assert batch.labels is not None, "this objective is only chosen where there are labels"
    return batch.labels


def output_fisher_factor(p: Float[Tensor, "b c"]) -> Float[Tensor, "b c c"]:
    """Compute ``A = diag(sqrt p) - p sqrt(p)^T``, for which ``A A^T = diag(p) - p p^T``: the Fisher of a softmax's logits."""
    root = p.sqrt()
    return torch.diag_embed(root) - p[:, :, None] * root[:, None, :]


def kl(ours: Float[Tensor, "... c"], theirs: Float[Tensor, "... c"]) -> Float[Tensor, ...]:
    """Compute the KL divergence of softmaxes along the last axis, with ``theirs`` as the reference distribution."""
    logs, reference = ours.log_softmax(-1), theirs.log_softmax(-1)
    return (reference.exp() * (reference - logs)).sum(-1)


def _pearson(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])
