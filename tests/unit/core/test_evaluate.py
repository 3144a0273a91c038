import pytest
import torch
from sklearn import metrics

from pruning_core.data.rows import Rows
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import Observed
from pruning_core.tasks.embedding import nearest_neighbour_agreement
from pruning_core.tasks.registry import family_of
from pruning_core.tasks.scoring import Classes, Scores, class_accuracy, class_f1, matthews, spearman


def compare(task, dense, pruned, labels):
    """Judge outputs; the samples themselves matter to none of these tasks."""
    rows = Rows((("text",),) * len(dense), None if labels is None else tuple(labels.tolist()))
    return family_of(task.type).quality(task, Observed(list(dense), list(pruned), None, rows))


def _task(kind, metric):
    columns = {"text": ["t"]} | ({} if kind == "feature-extraction" else {"label": "y"})
    task = {"type": kind, "dataset": "d", "columns": columns, "metric": metric}
    return PruneSpec.model_validate({"model": "m", "task": task, "sparsity": 0.5}).task


def test_metrics_by_hand():
    logits = torch.tensor([[2.0, 1], [0, 1], [3, 1], [0, 2], [5, 0]])  # predicts 0 1 0 1 0
    labels = torch.tensor([0, 1, 1, 1, 1])
    assert class_accuracy(Classes(logits, labels)) == pytest.approx(3 / 5)
    assert class_f1(Classes(logits, labels)) == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert matthews(Classes(logits, labels)) == pytest.approx((2 * 1 - 0 * 2) / (2 * 4 * 1 * 3) ** 0.5)
    ranks = torch.tensor([0.1, 0.5, 0.3])
    assert spearman(Scores(ranks, torch.tensor([1.0, 3.0, 2.0]))) == pytest.approx(1)


def test_f1_of_many_classes_is_the_macro_mean():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 4, generator=generator), torch.randint(0, 4, (40,), generator=generator)
    expected = metrics.f1_score(labels, logits.argmax(-1), average="macro")
    assert class_f1(Classes(logits, labels)) == pytest.approx(expected)


def test_embeddings_are_compared_with_the_dense_ones():
    dense = torch.nn.functional.normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    task = _task("feature-extraction", "cosine")
    same = compare(task, dense, dense, None)
    assert same.pruned == pytest.approx(1)
    assert same.details["nearest_neighbour_agreement"] == 1
    flipped = compare(task, dense, -dense, None)
    assert flipped.pruned == pytest.approx(-1)
    shuffled = compare(task, dense, dense.roll(1, 0), None)
    assert shuffled.details["nearest_neighbour_agreement"] < 0.5


def test_neighbours_by_hand():
    dense = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1.0]])
    pruned = torch.tensor([[1.0, 0], [0.1, 0.9], [0, 1.0]])
    # Dense: 0->1, 1->0, 2->1. Pruned: 0->1, 1->2, 2->1.
    assert nearest_neighbour_agreement(dense, pruned) == pytest.approx(2 / 3)


def test_classification_reports_agreement_with_dense():
    dense, pruned = torch.tensor([[1.0, 0], [0, 1.0]]), torch.tensor([[1.0, 0], [1.0, 0]])
    report = compare(_task("text-classification", "accuracy"), dense, pruned, torch.tensor([0, 1]))
    assert (report.dense, report.pruned, report.details["agreement_with_dense"]) == (1.0, 0.5, 0.5)
