"""Mixtures of experts: their output projections as one matrix, their scores, targets and files, and what is refused of them."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.arch.structure import groups_of
from pruning_core.budgets import kept_macs
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import ModelUnreadable, OutOfMemory, TargetUnreachable, UnsupportedArchitecture
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.methods.unit_plan import unreached
from pruning_core.models import placement
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.search.mask import search_mask
from pruning_core.stats.fisher import by_routing, importance, mask_statistics, probe
from tests import tasks, tiny
from tests.families import ARCHITECTURES

MIXTURES = ["mixtral", "qwen2-moe", "qwen3-moe", "olmoe", "granitemoe", "gpt-oss"]
every = pytest.mark.parametrize("name", MIXTURES)
HALF = {"metric": "params", "keep": 0.592, "tolerance": 0.02}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tasks.write_task_data(folder, "text-generation")
    return folder


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory):
    return ARCHITECTURES["mixtral"].write_for("text-generation", tmp_path_factory.mktemp("mixtral"))


def spec_of(model, data, **changes):
    fields = {"task": tasks.task_of("text-generation", data), "target": HALF, "evaluation": {"max_samples": 16}}
    return tiny.tiny_spec(model, data, **(fields | changes))


def of_experts(adapter):
    return [own for own in adapter.sublayers if own.group.kind == "expert"]


def some_states(seed=0):
    return torch.randn(2, 7, tiny.HIDDEN, generator=torch.Generator().manual_seed(seed))


@every
def test_the_spread_matrix_times_the_features_is_what_the_experts_add(name):
    own = of_experts(adapt(ARCHITECTURES[name].build()))[0]
    states = some_states()
    with torch.no_grad():
        read = own.read(states)
        found = own.module(read)
        mixed = own.added(states, own.features(states, None))
    torch.testing.assert_close(mixed, found[0] if isinstance(found, tuple) else found, rtol=1e-5, atol=1e-5)


@every
def test_a_token_has_features_of_its_own_experts_alone(name):
    own = of_experts(adapt(ARCHITECTURES[name].build()))[0]
    with torch.no_grad():
        features = own.features(some_states(), None)
    reached = features.unflatten(-1, (own.units, own.unit_width)).any(-1).sum(-1)
    assert reached.eq(own.group.passed).all()


@every
def test_new_output_projections_are_written_into_the_model_s_own_tensors_and_no_other_model_s(name):
    model = ARCHITECTURES[name].build()
    student = clone(model)
    before = of_experts(adapt(model))[0].output.weight.clone()
    of_experts(adapt(student))[0].output.set_(2 * before)
    torch.testing.assert_close(of_experts(adapt(student))[0].output.weight, 2 * before)
    torch.testing.assert_close(of_experts(adapt(model))[0].output.weight, before)


def test_all_experts_cost_parameters_and_a_token_pays_for_those_that_it_passes_through():
    groups = adapt(ARCHITECTURES["mixtral"].build()).groups
    head, expert = groups[0], groups[1]
    matrices = 3 * tiny.HIDDEN * tiny.NEURONS
    assert expert.params_per_unit == matrices + tiny.HIDDEN
    assert (expert.floor, head.floor) == (2, head.size)
    attention = kept_macs([head], [head.size], 10)
    assert kept_macs([head, expert], [head.size, 2], 10) == attention + 10 * 2 * matrices
    assert kept_macs([head, expert], [head.size, 4], 10) == kept_macs([head, expert], [head.size, 2], 10)


@pytest.mark.parametrize("metric", ["macs", "latency"])
@pytest.mark.parametrize("layout", ["stock", "per_layer"])
def test_a_target_that_experts_cannot_bring_nearer_is_refused_with_one_that_they_do(metric, layout, mixtral, data):
    target = {"metric": metric, "keep": 0.7}
    with pytest.raises(TargetUnreachable, match=r"passes through 2 experts.*ask for metric params, bytes or sparsity"):
        check_local_inputs(spec_of(mixtral, data, target=target, artifacts={"layout": layout}))


def test_a_target_between_two_numbers_of_experts_is_refused_with_the_next_ones_which_are_met(mixtral, data):
    with pytest.raises(TargetUnreachable, match=r"ask for keep 0\.591 or 0\.796") as refused:
        check_local_inputs(spec_of(mixtral, data, target=HALF | {"keep": 0.7}, artifacts={"layout": "stock"}))
    assert refused.value.param == "target.keep"
    for keep in (0.591, 0.796):
        check_local_inputs(spec_of(mixtral, data, target=HALF | {"keep": keep}, artifacts={"layout": "stock"}))
    target = {"metric": "sparsity", "sparsity": 0.3, "tolerance": 0.02}
    with pytest.raises(TargetUnreachable, match=r"ask for sparsity 0\.444 or 0\.222"):
        check_local_inputs(spec_of(mixtral, data, target=target, artifacts={"layout": "stock"}))
    own = {"experts": "own"}  # a layer may keep one more than another
    check_local_inputs(spec_of(mixtral, data, target=HALF | {"keep": 0.7}, artifacts=own))


def test_fewer_experts_than_a_token_passes_through_are_refused(mixtral, data):
    with pytest.raises(TargetUnreachable, match="the 2 experts that a token passes through"):
        check_local_inputs(spec_of(mixtral, data, target=HALF | {"keep": 0.3}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": {"name": "admm-pattern", "pattern": "2:4"}, "target": None}, "sets weights to zero"),
        ({"artifacts": {"layout": "serve", "engines": ["vllm"]}}, "layout stock keeps the same number in each"),
        ({"artifacts": {"formats": ["safetensors", "gguf"]}}, "format gguf is not written"),
    ],
)
def test_what_there_is_not_for_mixtures_is_refused_with_the_reason(changes, reason, mixtral, data):
    with pytest.raises(UnsupportedArchitecture, match=reason):
        check_local_inputs(spec_of(mixtral, data, **changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_experts_per_tok": 5}, "sends a token through 5.*layer 1 has 4 experts.*from 1 to 4"),
        ({"num_experts_per_tok": 0}, "does not say how many experts a token passes through"),
        ({"num_local_experts": 8}, "8 experts in each layer, and the weights of layer 1 have 4"),
        ({"intermediate_size": 48}, "48 neurons in each expert"),
    ],
)
def test_a_configuration_of_other_experts_than_the_files_have_is_refused(changes, reason, data, tmp_path):
    model = ARCHITECTURES["mixtral"].write_for("text-generation", tmp_path / "model")
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelUnreadable, match=reason):
        check_local_inputs(spec_of(model, data))


def test_layers_with_a_plain_ffn_between_mixtures_are_refused_with_the_reason(tmp_path):
    model = ARCHITECTURES["qwen3-moe"].write(tmp_path, "generation", mlp_only_layers=[0])
    with pytest.raises(UnsupportedArchitecture, match="some of its layers have a plain FFN"):
        groups_of(read_checkpoint(model))


def test_weights_larger_than_the_memory_are_refused_since_experts_are_not_read_one_by_one(mixtral, data, monkeypatch):
    monkeypatch.setattr(placement, "free_memory", lambda _device: 1000)
    with pytest.raises(OutOfMemory, match="the experts of a mixture are stored one by one"):
        placement.place_weights(spec_of(mixtral, data), read_checkpoint(mixtral), torch.device("cpu"))


def statistics_of(model, samples=6):
    from pruning_core.tasks.batch import Batch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (samples, 8), generator=generator)
    mask = torch.ones_like(ids)
    mask[:2, 5:] = 0
    batches = [Batch({"input_ids": ids, "attention_mask": mask}, torch.arange(samples), None)]
    adapter = adapt(model.model)
    return mask_statistics(
        model,
        adapter,
        batches,
        probe("text-generation", torch.Generator().manual_seed(0)),
        samples=samples,
        dtype=torch.float32,
        on_batch=lambda _done: None,
    ), batches[0]


@pytest.mark.parametrize("name", ["mixtral", "gpt-oss"])
def test_reap_is_the_mean_length_of_what_an_expert_adds_to_its_tokens(name, tmp_path):
    folder = ARCHITECTURES[name].write_for("text-generation", tmp_path)
    model = load_task_model(folder, "text-generation", torch.device("cpu"))
    statistics, batch = statistics_of(model)
    own = of_experts(adapt(model.model))[0]
    experts = own.module.experts
    calls = []
    with experts.register_forward_pre_hook(lambda _module, args: calls.append(args)), torch.no_grad():
        model.outputs(batch.inputs)
    hidden, chosen, gates = calls[0]
    for number in range(own.units):
        norms = []
        for token in batch.inputs["attention_mask"].flatten().nonzero().flatten().tolist():
            for place in (chosen[token] == number).nonzero().flatten().tolist():
                alone = torch.tensor([[number]]), gates[token, place].view(1, 1)
                with torch.no_grad():
                    norms.append(float(experts(hidden[token][None], *alone).norm()))
        assert statistics[1].routed.tokens[number] == len(norms)
        assert float(statistics[1].routed.added[number]) == pytest.approx(sum(norms), rel=1e-4)
    fisher = importance(statistics)
    reap = by_routing(fisher, statistics, by="reap")
    assert torch.equal(reap[0], fisher[0])
    assert float(reap[1].sum()) == pytest.approx(float(fisher[1].sum()))
    means = statistics[1].routed.added / statistics[1].routed.tokens
    assert reap[1].argsort().tolist() == means.argsort().tolist()


@pytest.mark.parametrize("by", ["fisher", "reap", "frequency"])
def test_an_expert_that_no_token_reaches_scores_nothing_and_is_told_of(by, tmp_path):
    built = ARCHITECTURES["gpt-oss"].build("generation")
    with torch.no_grad():
        built.model.layers[0].mlp.router.bias[1] = -1e4  # a router with a bias
    folder = tmp_path / "model"
    built.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    model = load_task_model(folder, "text-generation", torch.device("cpu"))
    statistics, _ = statistics_of(model)
    found = importance(statistics, representation=0.2)
    found = found if by == "fisher" else by_routing(found, statistics, by=by)
    assert (found[1] == 0).tolist() == [False, True, False, False]
    (said,) = unreached(found, adapt(model.model).groups)
    assert said.startswith("layer 1: no calibration token passes through 1 of 4 experts (1, counted from 0)")


def test_layers_share_one_number_of_experts_in_the_stock_layout_and_have_their_own_elsewhere():
    from pruning_core.budgets import Budget

    groups = adapt(ARCHITECTURES["mixtral"].build()).groups
    scores = [torch.ones(2), torch.tensor([4.0, 3, 2, 1]), torch.ones(2), torch.tensor([40.0, 30, 20, 10])]
    budget = Budget((1.0, 10.0, 1.0, 10.0), 4 + 60)
    alike = search_mask(scores, groups, budget, layers=(0, 1))
    assert alike.counts() == [2, 3, 2, 3]
    assert search_mask(scores, groups, budget).counts() == [2, 2, 2, 4]


@pytest.mark.long
@pytest.mark.parametrize("experts", ["fisher", "reap", "frequency"])
def test_a_stock_bundle_has_fewer_experts_and_loads_in_stock_transformers(experts, mixtral, data, tmp_path):
    spec = spec_of(mixtral, data, method={"name": "fisher-cg", "experts": experts})
    report = run(spec, tmp_path / "out", device="cpu")
    assert (report.layout, report.acceptance.loader) == ("stock", "stock")
    assert report.macs.pruned == report.macs.dense
    assert report.bytes.pruned < 0.65 * report.bytes.dense
    assert [own.experts.kept for own in report.layers] == [2, 2]
    assert "Whole experts were removed by `fisher-cg`" in (tmp_path / "out" / "README.md").read_text()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.num_local_experts == 2
    assert [len(own.experts.indices) for own in report.layers] == [2, 2]


@pytest.mark.long
def test_layers_with_numbers_of_their_own_load_by_our_loader_and_the_report_says_so(data, tmp_path):
    model = ARCHITECTURES["qwen2-moe"].write(tmp_path / "model", "generation", output_router_logits=True)
    target = {"metric": "params", "keep": 0.835, "tolerance": 0.02}
    report = run(spec_of(model, data, target=target, artifacts={"experts": "own"}), tmp_path / "out", device="cpu")
    assert (report.layout, report.acceptance.loader) == ("per_layer", "remote_code")
    kept = [own.experts.kept for own in report.layers]
    assert sorted(kept) == [2, 3]
    assert any(said.startswith("layers keep 2 to 3 experts") for said in report.warnings)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert [own.mlp.experts.num_experts for own in loaded.model.layers] == kept
    again = spec_of(
        tmp_path / "out", data, target={"metric": "params", "keep": 0.94, "tolerance": 0.02}, artifacts={"experts": "own"}
    )
    assert [own.experts.kept for own in run(again, tmp_path / "again", device="cpu").layers] == [2, 2]


@pytest.mark.long
def test_a_bare_mixture_is_read_by_the_bundle_s_own_code(tmp_path):
    data, model = tmp_path / "data", tmp_path / "model"
    tasks.write_task_data(data, "feature-extraction")
    ARCHITECTURES["mixtral"].write_for("feature-extraction", model)
    task, own = tasks.task_of("feature-extraction", data), {"experts": "own"}
    report = run(spec_of(model, data, task=task, artifacts=own, target=HALF | {"keep": 0.7}), tmp_path / "out", device="cpu")
    assert (report.acceptance.loader, report.acceptance.max_difference) == ("remote_code", 0)


@pytest.mark.long
def test_a_mixture_too_wide_for_least_squares_is_left_unrepaired_and_said(mixtral, data, tmp_path, monkeypatch):
    monkeypatch.setattr("pruning_core.arch.unit_costs.WIDEST_REPAIR", 100)
    monkeypatch.setattr("pruning_core.methods.unit_plan.WIDEST_REPAIR", 100)
    report = run(spec_of(mixtral, data), tmp_path / "out", device="cpu")
    assert [own.ffn.status for own in report.layers] == ["skipped", "skipped"]
    assert all(own.attention.solver != "none" for own in report.layers)
    assert any("were not repaired" in said for said in report.warnings)


def test_a_cut_mixture_routes_among_the_experts_that_stay():
    model = ARCHITECTURES["qwen2-moe"].build("generation")
    student = clone(model)
    groups = adapt(model).groups
    kept = Mask(
        tuple(torch.ones(g.size, dtype=torch.bool) if g.kind == "head" else torch.tensor([1, 0, 1, 1]).bool() for g in groups)
    )
    slice_(student, kept)
    own = student.model.layers[0].mlp
    assert (own.gate.num_experts, own.experts.num_experts, own.gate.top_k) == (3, 3, 2)
    assert own.gate.weight.shape == (3, tiny.HIDDEN)
    assert torch.equal(own.gate.weight, model.model.layers[0].mlp.gate.weight[[0, 2, 3]])
