"""Every type of task on tiny models: what it reads, what it scores by, and the whole pipeline where blocks can be pruned."""

from __future__ import annotations

import pytest
import torch

from pruning_core.data.labels import with_classes
from pruning_core.data.read import read_rows
from pruning_core.measure.quality import Evaluator
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import KINDS
from tests import tasks, tiny

ENCODERS = ("multi-label-classification", "sentence-similarity", "token-classification", "question-answering", "fill-mask")
PRUNABLE = (*ENCODERS, "text-generation", "image-classification", "summarization", "translation")
OTHERS = ("text-generation", "summarization", "translation", "image-classification")


def spec_of(task_type, folder, family="bert", **changes):
    model = tasks.write_task_model(folder / "model", task_type, family)
    data = tasks.write_task_data(folder / "data", task_type)
    task = tasks.task_of(task_type, data, **changes.pop("task", {}))
    return tiny.tiny_spec(model, data, task=task, evaluation={"max_samples": 48}, **changes)


def loaded(spec):
    model = load_task_model(tasks.Path(spec.model), spec.task.type, torch.device("cpu"))
    rows = with_classes(spec.task, read_rows(spec.task, "validation"), model.classes)
    return model, rows


@pytest.mark.parametrize("task_type", PRUNABLE)
@pytest.mark.long
def test_every_task_runs_end_to_end(task_type, tmp_path):
    spec = spec_of(task_type, tmp_path)
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.target.met
    assert report.acceptance.loader == "remote_code"
    assert report.acceptance.max_difference <= 1e-4
    assert report.quality.metric == KINDS[task_type].metrics[0]
    assert f"pipeline_tag: {KINDS[task_type].pipeline}" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("task_type", [*ENCODERS, *OTHERS])
def test_a_model_keeps_all_of_its_own_quality(task_type, tmp_path):
    spec = spec_of(task_type, tmp_path)
    model, rows = loaded(spec)
    report = Evaluator(spec, model, rows).compare(model, lambda _done: None)
    assert report.dense == report.pruned
    assert report.kept == pytest.approx(1) or report.dense == 0
    assert report.lower_is_better == (report.metric in ("perplexity", "loss"))


@pytest.mark.parametrize("task_type", [*ENCODERS, *OTHERS])
def test_losses_probes_and_divergences_do_not_depend_on_batching(task_type, tmp_path):
    spec = spec_of(task_type, tmp_path)
    model, rows = loaded(spec)
    family, encoded = model.family, model.family.encode(model, rows, 32)
    whole = encoded.batch([0, 1, 2])
    outputs = model.outputs(whole.inputs)
    other = outputs + torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
    for index in range(3):
        part = encoded.batch([index])
        alone = model.outputs(part.inputs)
        shape = tuple(slice(0, size) for size in alone.shape[1:])
        assert torch.allclose(outputs[index][shape], alone[0], atol=1e-4)
        if KINDS[task_type].has_loss:
            assert torch.allclose(family.losses(outputs, whole)[index], family.losses(alone, part)[0], atol=1e-3)
        ours, theirs = other[index : index + 1][(slice(None), *shape)], alone
        assert torch.allclose(
            family.divergences(other, outputs, whole)[index], family.divergences(ours, theirs, part)[0], rtol=1e-3
        )
        assert torch.allclose(family.probes(outputs, whole, 7)[index], family.probes(alone, part, 7)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "task_type", ["token-classification", "question-answering", "fill-mask", "text-generation", "summarization"]
)
def test_squares_of_sampled_probes_average_to_the_true_fisher(task_type, tmp_path):
    """The expected square of a probe's gradient along a direction of the logits is their Fisher's quadratic form."""
    spec = spec_of(task_type, tmp_path)
    model, rows = loaded(spec)
    family, encoded = model.family, model.family.encode(model, rows, 16)
    batch = encoded.batch([0])
    outputs = model.outputs(batch.inputs).detach()
    direction = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    squares = []
    for seed in range(400):
        point = outputs.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(family.probes(point, batch, seed * 1000).sum(), point)
        squares.append(float((gradient * direction).sum()) ** 2)
    if task_type == "question-answering":
        p, v = outputs[0].T.softmax(-1), direction[0].T
    else:
        counted = family.counted(batch)[0]
        p, v = (x[0][: len(counted)][counted] for x in (outputs, direction))
        p = p.softmax(-1)
    exact = float(((p * v.square()).sum(-1) - (p * v).sum(-1).square()).sum())
    assert sum(squares) / len(squares) == pytest.approx(exact, rel=0.3)


def test_a_spec_is_told_what_its_task_reads():
    base = {"model": "m", "sparsity": 0.5}
    task = {"type": "question-answering", "dataset": "d", "columns": {"text": ["q"], "label": "a"}, "metric": "f1"}
    with pytest.raises(ValueError, match=r"reads 2 \(a question, its context\) columns, got 1: q"):
        PruneSpec.model_validate(base | {"task": task})


@pytest.mark.parametrize(
    "method",
    [
        {"name": "admm-pattern", "pattern": "2:4"},
        pytest.param({"name": "block-lasso"}, marks=pytest.mark.matrix),
        pytest.param("magnitude", marks=pytest.mark.matrix),
    ],
)
@pytest.mark.parametrize("task_type", ["summarization", pytest.param("token-classification", marks=pytest.mark.matrix)])
@pytest.mark.long
def test_every_method_takes_tasks_of_tokens(method, task_type, tmp_path):
    name = method if isinstance(method, str) else method["name"]
    target = None if name == "admm-pattern" else {"metric": "sparsity", "sparsity": 0.4, "tolerance": 0.05}
    spec = spec_of(task_type, tmp_path, method=method, target=target)
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.target.met
    assert report.acceptance.max_difference <= 1e-4
