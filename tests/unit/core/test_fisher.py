from types import SimpleNamespace

import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from pruning_core.arch.adapter import adapt
from pruning_core.checks.recipe import Recipe
from pruning_core.stats.fisher import importance, loss_sum, mask_statistics, probe
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.classification import output_fisher_factor
from pruning_core.tasks.embedder import Embedder
from pruning_core.tasks.registry import family_of
from tests import tiny
from tests.oracles import masked


def _task_model(model, task_type="text-classification"):
    pooled = (Pooling(model.config.hidden_size), Normalize()) if task_type == "feature-extraction" else ()
    embedder = Embedder(Recipe((), own=False), pooled)
    return TaskModel(model.requires_grad_(False), None, task_type, family_of(task_type), None, "float32", embedder)


def _batch(n=5, length=7, classes=2, regression=False):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (n, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 4:], ids[0, 4:] = 0, 0
    labels = torch.rand(n, generator=generator) if regression else torch.randint(0, classes, (n,), generator=generator)
    return Batch({"input_ids": ids, "attention_mask": mask}, torch.arange(n), labels)


def _split(batch):
    return [
        Batch({k: v[i : i + 1] for k, v in batch.inputs.items()}, batch.rows[i : i + 1], batch.labels[i : i + 1])
        for i in range(len(batch.rows))
    ]


def _statistics(model, batches, objective, samples, task_type="text-classification"):
    return mask_statistics(
        _task_model(model, task_type),
        adapt(model),
        batches,
        objective,
        samples=samples,
        dtype=torch.float32,
        on_batch=lambda _done: None,
        keep_gradients=True,
    )


def _scores(model, batches, objective, samples):
    return [own.gradients for own in _statistics(model, batches, objective, samples)]


def _diagonal(gradients):
    return [g.double().square().sum(0) for g in gradients]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradients_equal_autograd_with_explicit_masks(family):
    model = tiny.build_model(family)
    batch = _batch()
    found = _scores(model, [batch], loss_sum("text-classification"), 5)
    adapter = adapt(model)
    for row, one in enumerate(_split(batch)):
        masks = tuple(torch.ones(group.size, requires_grad=True) for group in adapter.groups)
        with masked(adapter, masks):
            loss = torch.nn.functional.cross_entropy(model(**one.inputs).logits, one.labels)
        for ours, theirs in zip(found, torch.autograd.grad(loss, masks), strict=True):
            torch.testing.assert_close(ours[row], theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
def test_batching_does_not_change_the_gradients(labelled, classes):
    model = tiny.build_model("bert", num_labels=classes)
    batch = _batch(classes=classes)

    def objective():
        if labelled:
            return loss_sum("text-classification")
        return probe("text-classification", torch.Generator().manual_seed(0))

    whole, single = _scores(model, [batch], objective(), 5), _scores(model, _split(batch), objective(), 5)
    for a, b in zip(whole, single, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_two_class_probe_is_the_exact_true_fisher():
    model = tiny.build_model("bert")
    batch = _batch()
    probed = _diagonal(_scores(model, [batch], probe("text-classification", torch.Generator()), 5))
    p = model(**batch.inputs).logits.detach().softmax(-1)
    exact = [torch.zeros_like(i) for i in probed]
    for label in (0, 1):
        forced = Batch(batch.inputs, batch.rows, torch.full((5,), label))
        for total, g in zip(exact, _scores(model, [forced], loss_sum("text-classification"), 5), strict=True):
            total.add_((p[:, label, None] * g.square()).sum(0).double())
    for a, b in zip(probed, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-9)


def test_output_factor_squares_to_the_softmax_fisher():
    p = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    A = output_fisher_factor(p)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(A @ A.mT, expected)


def test_regression_loss_is_the_squared_error():
    model = tiny.build_model("bert", num_labels=1)
    batch = _batch(regression=True)
    value = loss_sum("regression")(model(**batch.inputs).logits, batch)
    expected = sum((model(**one.inputs).logits[0, 0] - one.labels[0]) ** 2 for one in _split(batch))
    torch.testing.assert_close(value, expected)


def test_embedding_probe_estimates_the_gauss_newton_diagonal():
    model = tiny.build_model("bert", task="features")
    batch = _batch(n=2)
    task_model = _task_model(model, "feature-extraction")
    adapter = adapt(model)
    exact = [torch.zeros(group.size) for group in adapter.groups]
    masks = tuple(torch.ones(group.size, requires_grad=True) for group in adapter.groups)
    with masked(adapter, masks):
        outputs = task_model.outputs(batch.inputs)
    for value in outputs.flatten():
        for total, g in zip(exact, torch.autograd.grad(value, masks, retain_graph=True), strict=True):
            total.add_(g.square())
    draws = 200
    mean = [torch.zeros(group.size) for group in adapter.groups]
    for seed in range(draws):
        objective = probe("feature-extraction", torch.Generator().manual_seed(seed))
        found = _statistics(model, [batch], objective, 2, "feature-extraction")
        for total, i in zip(mean, _diagonal(own.gradients for own in found), strict=True):
            total.add_(i / draws)
    for found, expected in zip(mean, exact, strict=True):
        assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.97
        assert float(found.sum() / expected.sum()) == pytest.approx(1, rel=0.15)


def test_energy_is_that_of_each_units_contribution_over_real_tokens():
    model = tiny.build_model("bert")
    batch = _batch()
    adapter = adapt(model)
    found = _statistics(model, [batch], loss_sum("text-classification"), 5)
    with torch.no_grad():
        trace = adapter.trace(batch.inputs)
        hidden = trace.hidden
        for sublayer, own in zip(adapter.sublayers, found, strict=True):
            features = sublayer.features(hidden, trace.contexts[sublayer.layer])
            for unit in range(sublayer.units):
                columns = range(unit * sublayer.unit_width, (unit + 1) * sublayer.unit_width)
                parts = [features[..., c, None] * sublayer.output.weight[:, c] for c in columns]
                energy = sum(float(part[batch.real].square().sum()) for part in parts)
                assert float(own.energy[unit]) == pytest.approx(energy, rel=1e-4)
            hidden = sublayer.close(sublayer.total(hidden, features))


def test_importance_does_not_depend_on_the_scale_of_the_loss():
    model = tiny.build_model("bert")
    loss = loss_sum("text-classification")
    small, large = (
        importance(_statistics(model, [_batch()], lambda o, b, f=factor: f * loss(o, b), 5), representation=0.3)
        for factor in (1.0, 100.0)
    )
    for a, b in zip(small, large, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-9)
    assert sum(float(scores.sum()) for scores in small) == pytest.approx(1.3)


def test_parameters_get_no_gradient():
    model = tiny.build_model("bert")
    _scores(model, [_batch()], loss_sum("text-classification"), 5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_labels_missing_is_a_programming_error():
    with pytest.raises(AssertionError):
        loss_sum("text-classification")(torch.zeros(1, 2), SimpleNamespace(labels=None))
