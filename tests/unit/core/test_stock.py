"""The stock layout: the search honours what a config can say, what is gone is stood in for, plain transformers loads it."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import drop_sublayers_
from pruning_core.arch.masks import Mask
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.errors import TargetUnreachable, UnsupportedArchitecture
from pruning_core.run.pipeline import run
from pruning_core.search.stock_layers import choose_layers, search_stock, widest
from tests import tiny
from tests.oracles import head_group, neuron_group

LAYERS, HEADS, NEURONS = 4, 2, 6
GROUPS = tuple(
    group
    for layer in range(LAYERS)
    for group in (head_group(layer, heads=HEADS, head_size=4, hidden=8), neuron_group(layer, neurons=NEURONS, hidden=8))
)


def _importance(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(group.size, generator=generator) for group in GROUPS]


def _budget(limit):
    return Budget(tuple(4.0 if group.kind == "head" else 1.0 for group in GROUPS), limit)


def _kept(mask, importance):
    return sum(float(values[kept].sum()) for values, kept in zip(importance, mask.kept, strict=True))


@pytest.mark.parametrize("limit", [9.0, 17.5, 30.0, 44.0, 56.0])
@pytest.mark.parametrize("seed", range(4))
def test_given_the_layers_the_mask_is_the_best_that_stock_code_can_build(limit, seed):
    importance, budget = _importance(seed), _budget(limit)
    for layers in itertools.combinations(range(LAYERS), min(LAYERS, int(limit // 9))):
        mask = search_stock(importance, GROUPS, budget, layers)
        counts = mask.counts()
        assert budget.spent(counts) <= limit
        assert [layer for layer in range(LAYERS) if counts[2 * layer] == HEADS] == list(layers)
        assert sum(counts[::2]) == HEADS * len(layers)
        (width,) = {counts[2 * layer + 1] for layer in layers}
        # One neuron more in each layer would be above the budget, unless there is none.
        assert width == NEURONS or len(layers) * (4 * HEADS + width + 1) > limit
        best = sum(
            float(importance[2 * layer].sum() + importance[2 * layer + 1].sort(descending=True).values[:width].sum())
            for layer in layers
        )
        assert _kept(mask, importance) == pytest.approx(best)


def test_layers_go_only_as_long_as_that_helps():
    gain = {3: 0.5, 1: 0.2}  # the model comes closer without 3, and would come closer still without 1

    def divergence(layers):
        return 1.0 - sum(gain.get(layer, -0.1) for layer in range(LAYERS) if layer not in layers)

    assert choose_layers(_importance(), GROUPS, _budget(40), divergence) == (0, 1, 2)
    assert choose_layers(_importance(), GROUPS, _budget(40), lambda layers: -len(layers)) == (0, 1, 2, 3)


def test_a_budget_is_used_up_rather_than_undercut():
    # Three layers of full width cost 42: with 50 to spend they would be less than what was asked for.
    assert choose_layers(_importance(), GROUPS, _budget(50), lambda layers: float(len(layers))) == (0, 1, 2, 3)


def test_no_more_layers_are_kept_than_the_budget_admits():
    seen = []
    chosen = choose_layers(_importance(), GROUPS, _budget(20), lambda layers: seen.append(layers) or -float(len(layers)))
    assert len(chosen) == 2
    assert max(len(layers) for layers in seen) == 2
    with pytest.raises(TargetUnreachable, match="keeps all heads of a layer"):
        choose_layers(_importance(), GROUPS, _budget(8.5), lambda _layers: 0.0)


def test_a_measured_curve_gives_the_width_too():
    curves = tuple(((1, 1.0), (2, 2.0)) if group.kind == "head" else ((0, 0.5), (3, 1.0), (6, 3.0)) for group in GROUPS)
    assert [widest(GROUPS, CurveBudget(curves, limit), 4) for limit in (11.9, 12.0, 20.0)] == [None, 3, 6]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_model_without_a_block_computes_what_the_others_compute(family):
    model = tiny.build_model(family)
    adapter, student = adapt(model), clone(model)
    mask = Mask(tuple(torch.full((group.size,), group.layer != 0) for group in adapter.groups))
    assert drop_sublayers_(student, mask) == (2, 3)
    inputs = {
        "input_ids": torch.tensor([[2, 9, 10, 3], [2, 11, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        trace = adapter.trace(inputs)
        hidden = trace.hidden
        for sublayer in adapter.sublayers[2:]:
            hidden = sublayer.forward(hidden, trace.contexts[sublayer.layer])
        ours = adapt(student).blocks_forward(adapt(student).trace(inputs))
    assert torch.allclose(ours[real], hidden[real], atol=1e-6)
    assert len(adapt(model).sublayers) == 4  # the dense model has kept its blocks


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.long
def test_every_family_loads_in_plain_transformers(family, tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", family)
    spec = tiny.tiny_spec(
        model, tiny_sst2, artifacts={"layout": "stock"}, target={"metric": "macs", "keep": 0.6, "tolerance": 0.05}
    )
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.acceptance.loader == "stock"  # by a process that cannot import pruning_core
    assert report.layout == "stock"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not {"quantization_config", "auto_map"} & set(config)
    assert not list((tmp_path / "out").glob("*.py"))
    kept = [layer for layer in report.layers if layer.kept_heads]
    assert {(layer.kept_heads, layer.kept_neurons) for layer in kept} == {
        (tiny.HEADS, config.get("intermediate_size", config.get("hidden_dim")))
    }
    assert len(kept) == config.get("num_hidden_layers", config.get("n_layers"))


@pytest.mark.parametrize("recovery", [{"kind": "none"}, {"kind": "masks"}, {"kind": "weights"}])
@pytest.mark.parametrize("method", ["fisher-cg", "magnitude"])
@pytest.mark.long
def test_whole_layers_go_where_the_budget_leaves_no_other_way(method, recovery, tiny_bert, tiny_sst2, tmp_path):
    target = {"metric": "macs", "keep": 0.3, "tolerance": 0.05}
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts={"layout": "stock"}, target=target, method=method, recovery=recovery)
    report = run(spec, tmp_path / "out", device="cpu")
    assert sorted(layer.kept_heads for layer in report.layers) == [0, tiny.HEADS]
    gone = next(layer for layer in report.layers if not layer.kept_heads)
    assert (gone.kept_neurons, gone.head_indices, gone.ffn.status) == (0, (), "skipped")


@pytest.mark.long
def test_what_stands_in_for_a_block_is_repaired(tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert")
    target = {"metric": "macs", "keep": 0.3, "tolerance": 0.05}
    agreement = {}
    for kind in ("none", "weights"):
        spec = tiny.tiny_spec(model, tiny_sst2, artifacts={"layout": "stock"}, target=target, recovery={"kind": kind})
        agreement[kind] = run(spec, tmp_path / kind, device="cpu").quality.details["agreement_with_dense"]
    assert agreement["weights"] > agreement["none"]


@pytest.mark.long
def test_a_model_with_widths_of_its_own_is_refused(tiny_bert, tiny_sst2, tmp_path):
    run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "first", device="cpu")
    with pytest.raises(UnsupportedArchitecture, match="widths of its own"):
        run(tiny.tiny_spec(tmp_path / "first", tiny_sst2, artifacts={"layout": "stock"}), tmp_path / "out", device="cpu")
