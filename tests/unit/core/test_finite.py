"""Bad input: NaN and infinity, wherever they come from, end as an error that names the layer, never as a result."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.arch.adapter import adapt
from pruning_core.arch.verify import verify
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.errors import MetricUndefined, NotFinite, PruningError
from pruning_core.evidence.calibration import TokenSet
from pruning_core.evidence.context import Evidence
from pruning_core.evidence.states import DenseStates
from pruning_core.machine.finite import is_finite, require_finite
from pruning_core.measure import latency_table
from pruning_core.measure.latency import latency_report
from pruning_core.measure.quality import Evaluator, observe
from pruning_core.models.load import load_task_model
from pruning_core.patterns.project import LargestFraction
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.recovery.sparsify import sparsify_
from pruning_core.run.pipeline import run
from pruning_core.search.mask import search_mask
from pruning_core.search.stock_layers import choose_layers
from pruning_core.spec.method import AdmmPattern
from pruning_core.spec.prune import LatencySpec, RecoverySpec
from pruning_core.stats.fisher import mask_statistics
from pruning_core.stats.linears import linear_statistics
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.registry import family_of
from tests import tiny
from tests.unit.core.test_recovery import half_mask

BAD = [math.nan, math.inf, -math.inf]
MATRIX = "bert.encoder.layer.1.intermediate.dense"


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_guard_finds_one_value_among_many(bad, dtype):
    values = torch.zeros(7, 11, dtype=dtype)
    values[3, 4] = torch.finfo(dtype).max
    assert is_finite(values)
    values[5, 10] = bad
    assert not is_finite(values)
    assert not is_finite(values.T)
    with pytest.raises(NotFinite, match="layer 3: 1 of 77 values are NaN or infinite") as caught:
        require_finite(values, "layer 3", param="model")
    assert isinstance(caught.value, PruningError)
    assert (caught.value.code, caught.value.param) == ("not_finite", "model")


@pytest.mark.parametrize("fine", [torch.zeros(0), torch.arange(3), torch.empty(2, device="meta"), 1.0, torch.tensor(2.0)])
def test_the_guard_takes_what_cannot_be_otherwise(fine):
    require_finite(fine, "it")


def _batches(count=3, n=4, length=9):
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            {
                "input_ids": torch.randint(5, 60, (n, length), generator=generator),
                "attention_mask": torch.ones(n, length, dtype=torch.long),
            },
            torch.arange(n) + n * index,
            torch.randint(0, 2, (n,), generator=generator),
        )
        for index in range(count)
    ]


def _task_model(model):
    own = "text-classification"
    return TaskModel(model.requires_grad_(False), None, own, family_of(own), None, "float32")


def _evidence(model, batches):
    adapter = adapt(model)
    calibration = TokenSet(tuple(batches), sum(len(batch.rows) for batch in batches), 0, 0.0, "")
    return Evidence(adapter, calibration, DenseStates(adapter, batches, 2**30), torch.float32)


def _spoiled(bad, name=f"{MATRIX}.weight"):
    """A model with one bad value, which the loader has not seen."""
    model = tiny.build_model("bert")
    with torch.no_grad():
        model.get_parameter(name)[0, 3] = bad
    return model


@pytest.mark.parametrize("bad", BAD)
def test_weights_of_a_checkpoint(bad, tiny_bert, tmp_path):
    for path in tiny_bert.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tiny_bert / "model.safetensors")
    weights[f"{MATRIX}.weight"][2, 1] = bad
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotFinite, match=rf"{MATRIX}\.weight: 1 of 2048 values") as caught:
        load_task_model(tmp_path, "text-classification", torch.device("cpu"))
    assert caught.value.param == "model"


def test_weights_of_a_checkpoint_that_stays_in_its_files(tiny_bert, tiny_sst2, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_bert.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    weights = load_file(model / "model.safetensors")
    weights[f"{MATRIX}.weight"][2, 1] = math.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotFinite, match="block 2 of the model's 2"):
        run(tiny.tiny_spec(model, tiny_sst2, memory={"weights": "paged"}), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_weights_that_their_stored_type_cannot_hold(tiny_sst2, tmp_path):
    model = tiny.build_model("bert")
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight.fill_(1.0)
        model.bert.pooler.dense.bias[0] = 1e6
    model.save_pretrained(tmp_path / "model")
    tiny.write_tokenizer(tmp_path / "model")
    spec = tiny.tiny_spec(tmp_path / "model", tiny_sst2, artifacts={"dtype": "float16"})
    with pytest.raises(NotFinite, match=r"bert\.pooler\.dense\.bias in float16: 1 of 32") as caught:
        run(spec, tmp_path / "out", device="cpu")
    assert caught.value.param == "artifacts.dtype"


@pytest.mark.parametrize("bad", BAD)
def test_activations_of_a_block(bad):
    with pytest.raises(NotFinite, match="block 2 of the model's 2"):
        verify(adapt(_spoiled(bad)), _batches(1)[0].inputs)


def _score(model, objective):
    return mask_statistics(
        _task_model(model), adapt(model), _batches(), objective, samples=12, dtype=torch.float32, on_batch=lambda _done: None
    )


def test_activations_of_the_scoring_pass():
    # What every token's objective is finite of is still not finite at the one place that is spoiled.
    with pytest.raises(NotFinite, match=r"bert\.encoder\.layer\.1\.output\.dense"):
        _score(_spoiled(math.inf), lambda outputs, _batch: torch.nan_to_num(outputs, 0, 0, 0).sum())


def test_an_objective_that_is_no_number():
    with pytest.raises(NotFinite, match="outputs on calibration batch 0"):
        _score(tiny.build_model("bert"), lambda outputs, _batch: outputs.sum() * math.nan)


def test_gradients_that_are_no_numbers():
    def objective(outputs, _batch):  # zero, with an infinite gradient
        return (outputs - outputs.detach()).abs().sqrt().sum()

    with pytest.raises(NotFinite, match=r"the scores of the units that bert\.encoder\.layer\.1\.output\.dense reads"):
        _score(tiny.build_model("bert"), objective)


@pytest.mark.parametrize("where", ["activations", "gradients"])
def test_statistics_of_linears(where):
    model = _spoiled(math.inf) if where == "activations" else tiny.build_model("bert")

    def objective(outputs, _batch):
        own = torch.nan_to_num(outputs, 0, 0, 0)
        return own.sum() if where == "activations" else (own - own.detach()).abs().sqrt().sum()

    evidence = _evidence(model, _batches())
    linears = evidence.dense.linears
    expected = "the covariances of what bert.encoder.layer.1.output.dense" if where == "activations" else "squared gradients of"
    with pytest.raises(NotFinite, match=expected):
        linear_statistics(
            _task_model(model),
            linears,
            dict.fromkeys(linears, 1),
            _batches(),
            objective,
            dtype=torch.float32,
            on_batch=lambda _done: None,
            states=evidence.states,
        )


def _groups(model):
    return adapt(model).groups


@pytest.mark.parametrize("bad", BAD)
def test_scores_before_the_search(bad):
    groups = _groups(tiny.build_model("bert"))
    scores = [torch.ones(group.size) for group in groups]
    scores[3][5] = bad
    budgets = [Budget([1.0] * len(groups), 100.0), CurveBudget(tuple(((1, 1.0),) for _ in groups), 100.0)]
    for budget in budgets:
        with pytest.raises(NotFinite, match="the units of layer 2 FFN: 1 of 64"):
            search_mask(scores, groups, budget)
    with pytest.raises(NotFinite, match="the units of layer 2 FFN"):
        choose_layers(scores, groups, budgets[0], lambda _layers: 0.0)


@pytest.mark.parametrize("bad", BAD)
def test_divergences_of_trial_repairs(bad):
    groups = _groups(tiny.build_model("bert"))
    scores = [torch.ones(group.size) for group in groups]
    budget = Budget([1.0] * len(groups), 10.0)
    with pytest.raises(NotFinite, match="keeps layers 1"):
        choose_layers(scores, groups, budget, lambda layers: bad if layers == (0,) else 1.0)


@pytest.mark.parametrize("bad", BAD)
def test_grams_of_a_repair(bad):
    model = tiny.build_model("bert")
    evidence = _evidence(_spoiled(bad), _batches())
    with pytest.raises(NotFinite, match=r"bert\.encoder\.layer\.1\.output\.dense"):
        prune_and_recover_(adapt(model), half_mask(adapt(model)), evidence, RecoverySpec(), on_sublayer=lambda _done: None)


@pytest.mark.parametrize("bad", BAD)
def test_grams_of_a_pattern(bad):
    model = tiny.build_model("bert")
    evidence = _evidence(_spoiled(bad), _batches())
    options = AdmmPattern(name="admm-pattern")
    with pytest.raises(NotFinite, match=MATRIX):
        sparsify_(adapt(model), LargestFraction(0.5), evidence, options, RecoverySpec(), on_sublayer=lambda _done: None)


@pytest.mark.parametrize("bad", BAD)
def test_outputs_of_an_evaluation(bad):
    model = _task_model(_spoiled(bad))
    batches = _batches()
    with pytest.raises(NotFinite, match="on batch 1 of the validation split, logits of the pruned model"):
        observe(model, TokenSet(batches, 12, 0, 0.0, ""), None, lambda _done: None, name="pruned")


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_a_metric_that_is_no_number(tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", num_labels=1)
    columns = {"text": ["sentence"], "label": "label"}
    task = {"type": "regression", "dataset": str(tiny_sst2), "columns": columns, "metric": "spearman"}
    spec = tiny.tiny_spec(model, tiny_sst2, task=task)
    from pruning_core.data.read import read_rows

    dense = load_task_model(model, "regression", torch.device("cpu"))
    evaluator = Evaluator(spec, dense, read_rows(spec.task, "validation"))
    constant = load_task_model(model, "regression", torch.device("cpu"))
    with torch.no_grad():
        constant.model.classifier.weight.zero_()
    found = evaluator.compare(constant, lambda _done: None)
    assert (found.undefined, found.pruned) == (True, 0.0), "scores that are all alike have no correlation, and say nothing"
    with pytest.raises(MetricUndefined, match="spearman of the dense model on 120 samples"):
        Evaluator(spec, constant, read_rows(spec.task, "validation")).compare(dense, lambda _done: None)


@pytest.mark.parametrize("bad", BAD)
def test_measured_latencies(bad):
    spec = LatencySpec(batch=1, length=8, repeats=3)
    for times in (([1.0, bad, 3.0], [1.0] * 3), ([1.0] * 3, [1.0, bad, 3.0])):
        with pytest.raises(NotFinite, match="latency of the"):
            latency_report(*times, spec, threads=1, device="cpu")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_times_of_a_latency_table(bad, tiny_bert, monkeypatch):
    dense = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    monkeypatch.setattr(latency_table, "timed", lambda _forward, _device: bad)
    with pytest.raises(NotFinite, match="the time of layer 2 with 1 of its heads"):
        latency_table.latency_model(dense, adapt(dense.model), LatencySpec(batch=1, length=8, repeats=3), None)


def test_a_kept_table_with_bad_times_is_measured_again(tiny_bert, tmp_path):
    dense = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    spec = LatencySpec(batch=1, length=8, repeats=3)
    first = latency_table.latency_model(dense, adapt(dense.model), spec, tmp_path)
    (path,) = tmp_path.iterdir()
    for bad in ("NaN", "Infinity", "-1.0"):
        path.write_text(path.read_text().replace('"total":', f'"total":{bad},"x":', 1).replace(',"x":', ',"y":', 1))
        again = latency_table.latency_model(dense, adapt(dense.model), spec, tmp_path)
        assert math.isfinite(again.total)
    assert first.total > 0
