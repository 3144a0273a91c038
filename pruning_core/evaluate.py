"""Quality of a model on the validation split, and fidelity to the dense one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import SupportsFloat, cast

import torch
from torch import Tensor

from pruning_core.calibration import Batch, evaluation_tokens, tokenise
from pruning_core.data import Rows
from pruning_core.models import TaskModel
from pruning_core.report import QualityReport
from pruning_core.shapes import Float, Int
from pruning_core.spec import Metric, PruneSpec, TaskSpec

# Nearest neighbours are looked for among at most this many sentences: the comparison is quadratic.
_NEIGHBOUR_LIMIT = 4096


class Judge:
    """The validation split and what the dense model makes of it, found out once for all checkpoints of a run."""

    def __init__(self, spec: PruneSpec, dense: TaskModel, validation: Rows) -> None:
        """Tokenise the validation rows; the dense model runs at the first comparison."""
        limit = spec.evaluation.max_samples
        rows = Rows(validation.texts[:limit], None if validation.labels is None else validation.labels[:limit])
        self._task, self._dense = spec.task, dense
        self._tokens = tokenise(
            dense.tokenizer,
            rows,
            spec.task.type,
            max_length=spec.evaluation.max_length,
            batch_tokens=evaluation_tokens(dense.device),
        )
        self._dense_outputs: Tensor | None = None

    @property
    def steps(self) -> int:
        """Batches that the next comparison runs."""
        return len(self._tokens.batches) * (2 if self._dense_outputs is None else 1)

    def compare(self, pruned: TaskModel, on_batch: Callable[[int], None]) -> QualityReport:
        """Judge a checkpoint by the task's metric, beside the dense model."""
        tokens, done = self._tokens, 0
        if self._dense_outputs is None:
            self._dense_outputs = collect_outputs(self._dense, tokens.batches, tokens.samples, on_batch)
            done = len(tokens.batches)
        outputs = collect_outputs(pruned, tokens.batches, tokens.samples, lambda step: on_batch(done + step))
        return compare(self._task, self._dense_outputs, outputs, collect_labels(tokens.batches, tokens.samples))


def collect_outputs(
    task_model: TaskModel, batches: Sequence[Batch], samples: int, on_batch: Callable[[int], None]
) -> Float[Tensor, "samples o"]:
    """Run a model over all batches; rows in the samples' own order, on the CPU."""
    outputs: Tensor | None = None
    with torch.inference_mode():
        for done, batch in enumerate(batches, start=1):
            part = task_model.outputs(batch.to(task_model.device).inputs).float().cpu()
            if outputs is None:
                outputs = torch.empty(samples, part.shape[1])
            outputs[batch.rows] = part
            on_batch(done)
    assert outputs is not None, "a token set has at least one batch"
    return outputs


def collect_labels(batches: Sequence[Batch], samples: int) -> Tensor | None:
    """Put the labels in the samples' own order; None where there are none."""
    labels: Tensor | None = None
    for batch in batches:
        if batch.labels is None:
            return None
        if labels is None:
            labels = torch.empty(samples, dtype=batch.labels.dtype)
        labels[batch.rows] = batch.labels
    return labels


def compare(task: TaskSpec, dense: Float[Tensor, "n o"], pruned: Float[Tensor, "n o"], labels: Tensor | None) -> QualityReport:
    """Judge the outputs of the pruned model by the task's metric, beside those of the dense model.

    Embeddings have no labels: their metric is the mean cosine to the dense model's, whose own value is 1.
    """
    if task.type == "feature-extraction":
        return QualityReport(
            metric=task.metric,
            dense=1.0,
            pruned=float((dense * pruned).sum(-1).mean()),
            samples=len(dense),
            details={"nearest_neighbour_agreement": nearest_neighbour_agreement(dense, pruned)},
        )
    assert labels is not None, "the spec requires a label column for this task type"
    details: dict[str, float]
    if task.type == "regression":
        details = {"pearson_with_dense": _pearson(dense[:, 0], pruned[:, 0])}
    else:
        details = {"agreement_with_dense": float((dense.argmax(-1) == pruned.argmax(-1)).double().mean())}
    return QualityReport(
        metric=task.metric,
        dense=score(task.metric, dense, labels),
        pruned=score(task.metric, pruned, labels),
        samples=len(dense),
        details=details,
    )


def score(metric: Metric, outputs: Float[Tensor, "n o"], labels: Tensor) -> float:
    """Compute a metric of logits (n, classes) or scores (n, 1) against labels (n,)."""
    if metric == "spearman":
        from scipy.stats import spearmanr

        return float(cast("SupportsFloat", spearmanr(outputs[:, 0].numpy(), labels.numpy())[0]))
    from sklearn import metrics

    truth, predicted = labels.numpy(), outputs.argmax(-1).numpy()
    if metric == "accuracy":
        return float(metrics.accuracy_score(truth, predicted))
    if metric == "matthews":
        return float(metrics.matthews_corrcoef(truth, predicted))
    average = "binary" if outputs.shape[-1] == 2 else "macro"
    return float(metrics.f1_score(truth, predicted, average=average))


def nearest_neighbour_agreement(dense: Float[Tensor, "n d"], pruned: Float[Tensor, "n d"]) -> float:
    """Share of sentences whose nearest other sentence (by cosine) is the same in both embeddings."""
    dense, pruned = dense[:_NEIGHBOUR_LIMIT], pruned[:_NEIGHBOUR_LIMIT]
    if len(dense) < 2:
        return 1.0
    return float((_nearest(dense) == _nearest(pruned)).double().mean())


def _nearest(embeddings: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    similarity = embeddings @ embeddings.T
    return similarity.fill_diagonal_(-torch.inf).argmax(-1)


def _pearson(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])
