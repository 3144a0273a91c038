"""Tables of engines: what is timed, what is made of the times, and what is refused by them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.engines.limits import Limits
from pruning_core.errors import TargetUnreachable, UnsupportedArchitecture
from pruning_core.measure.engine_table import (
    EngineTable,
    Stack,
    StackTime,
    budget_in_engine,
    least_share,
    model_from,
    predicted_share,
    shapes_of,
    unsteadiness,
)
from pruning_core.search.allowed import search_allowed
from pruning_core.spec.targets import LatencyTarget

LAYERS, HEADS, NEURONS = 12, 3, 1536
LIMITS = Limits(64, whole_attention=True)
TARGET = LatencyTarget(metric="latency", engine="vllm", keep=0.7)


def _groups(layers=LAYERS, heads=HEADS, neurons=NEURONS):
    head = UnitGroup(0, "head", heads, 192, 576, 576 * 640, 576 * 640)
    neuron = UnitGroup(0, "neuron", neurons, 1, 576, 3 * 576, 3 * 576)
    return tuple(replace(own, layer=layer) for layer in range(layers) for own in (head, neuron))


def _table(shapes, seconds, **named):
    """A table as an engine would give it whose seconds are a function of a stack."""
    times = tuple(
        StackTime(
            depth=own.depth,
            heads=own.heads,
            neurons=own.neurons,
            seconds={"decode_s": seconds(own), "prefill_s": 2 * seconds(own)},
        )
        for own in shapes.stacks(2**20)
    )
    return EngineTable(engine="vllm", version="1", dtype="float32", threads=1, times=times, **named)


def _steady(stack: Stack) -> float:
    """10 ms outside the layers; 1 ms a layer, 0.5 ms a head, and 3 ms by the width."""
    return 1e-3 * (10 + stack.depth * (1 + 0.5 * stack.heads + 3 * stack.neurons / NEURONS))


def test_stacks_are_one_shape_at_two_depths_and_others_at_the_larger():
    shapes = shapes_of(_groups(), "serve", LIMITS)
    stacks = shapes.stacks(2**20)
    assert stacks[:2] == (Stack(2, HEADS, NEURONS), Stack(8, HEADS, NEURONS))
    assert {own.depth for own in stacks[2:]} == {8}
    assert {own.heads for own in stacks} == {HEADS}, "attention stays whole there"
    widths = [own.neurons for own in stacks[2:]]
    assert (widths[0], len(widths)) == (64, 4)
    assert all(width % 64 == 0 for width in widths)


def test_groups_of_heads_are_timed_where_an_engine_takes_fewer():
    stacks = shapes_of(_groups(), "serve", Limits(64, whole_attention=False)).stacks(2**20)
    assert sorted({own.heads for own in stacks}) == [1, 2, 3]


@pytest.mark.parametrize(("layer_bytes", "deep"), [(2**20, 8), (2**28, 8), (2**29, 4), (2**33, 3)])
def test_stacks_of_large_layers_are_less_deep(layer_bytes, deep):
    assert max(own.depth for own in shapes_of(_groups(), "serve", LIMITS).stacks(layer_bytes)) == deep


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_models_of_few_layers_are_timed_at_their_own_depth(layers):
    shapes = shapes_of(_groups(layers), "serve", LIMITS)
    assert max(own.depth for own in shapes.stacks(2**20)) == layers
    assert model_from(_table(shapes, _steady), shapes, "decode").total == pytest.approx(1e3 * _steady(Stack(layers, 3, 1536)))


@pytest.mark.parametrize(("phase", "times"), [("decode", 1), ("prefill", 2)])
def test_a_table_without_noise_predicts_every_shape(phase, times):
    limits = Limits(64, whole_attention=False)
    shapes = shapes_of(_groups(), "serve", limits)
    model = model_from(_table(shapes, _steady), shapes, phase)
    assert model.total == pytest.approx(1e3 * times * _steady(Stack(LAYERS, HEADS, NEURONS)))
    assert model.fixed == pytest.approx(10 * times)
    for heads, neurons in ((3, 1536), (3, 64), (1, 64), (2, 640)):
        wanted = _steady(Stack(LAYERS, heads, neurons)) / _steady(Stack(LAYERS, HEADS, NEURONS))
        assert predicted_share(model, (heads, neurons) * LAYERS) == pytest.approx(wanted)


def test_noise_never_makes_more_units_cheaper():
    shapes = shapes_of(_groups(), "serve", LIMITS)
    table = _table(shapes, lambda own: _steady(own) * (1.2 if own.neurons == 832 else 1.0))
    costs = [cost for _, cost in model_from(table, shapes, "decode").curves[1]]
    assert costs == sorted(costs)
    assert math.isclose(costs[0], 0, abs_tol=1e-12)


@pytest.mark.parametrize(("factor", "wanted"), [(1.0, 0.0), (0.97, 0.0), (2.0, 0.35)])
def test_times_that_contradict_each_other_are_told(factor, wanted):
    shapes = shapes_of(_groups(), "serve", LIMITS)
    table = _table(shapes, lambda own: _steady(own) * (factor if own.neurons == 832 else 1.0))
    assert unsteadiness(table, shapes, "decode") == pytest.approx(wanted, abs=0.1)
    deep = _table(shapes, lambda own: 1.0 if own.depth == 2 else 0.5)
    assert unsteadiness(deep, shapes, "decode") == pytest.approx(0.5)


def test_the_search_keeps_to_the_budget_and_to_the_widths_of_the_engine():
    import torch

    shapes = shapes_of(_groups(), "serve", LIMITS)
    model = model_from(_table(shapes, _steady), shapes, "decode")
    draw = torch.Generator().manual_seed(0)
    importance = [torch.rand(group.size, generator=draw) for group in _groups()]
    mask = search_allowed(importance, _groups(), budget_in_engine(model, shapes, TARGET, "decode"), LIMITS)
    assert TARGET.keep - TARGET.tolerance <= predicted_share(model, mask.counts()) <= TARGET.keep
    assert all(count % 64 == 0 for count in mask.counts()[1::2])
    assert set(mask.counts()[::2]) == {HEADS}


def test_an_engine_whose_time_is_not_that_of_the_layers_is_told_at_once():
    shapes = shapes_of(_groups(), "serve", LIMITS)
    model = model_from(_table(shapes, lambda own: 0.1 + _steady(own) * 1e-3), shapes, "decode")
    with pytest.raises(
        TargetUnreachable, match=r"will not be faster: .* of decode in vLLM stays at 1\.00 .* speed-up below 1\.05"
    ):
        budget_in_engine(model, shapes, TARGET, "decode")


def test_layers_that_take_no_time_at_all_are_no_division_by_zero():
    shapes = shapes_of(_groups(), "serve", LIMITS)
    model = model_from(_table(shapes, lambda own: 0.1 - 1e-3 * own.depth), shapes, "decode")
    with pytest.raises(TargetUnreachable, match="will not be faster"):
        budget_in_engine(model, shapes, TARGET, "decode")


def test_a_share_below_what_the_narrowest_layers_take_says_what_can_be_reached():
    shapes = shapes_of(_groups(), "serve", LIMITS)
    model = model_from(_table(shapes, _steady), shapes, "decode")
    assert 0.5 < least_share(model, shapes) < 0.6
    with pytest.raises(TargetUnreachable, match=r"about 0\.546 of the latency of decode in vLLM must be kept") as refused:
        budget_in_engine(model, shapes, TARGET.but(keep=0.3), "decode")
    assert refused.value.param == "target.keep"


def test_whole_layers_may_go_in_the_stock_layout():
    shapes = shapes_of(_groups(), "stock", None)
    model = model_from(_table(shapes, _steady), shapes, "decode")
    few = (HEADS, 1536) * 3 + (0, 0) * (LAYERS - 3)
    assert predicted_share(model, few) == pytest.approx(_steady(Stack(3, HEADS, 1536)) / _steady(Stack(LAYERS, HEADS, 1536)))
    assert least_share(model, shapes) < 0.2


def test_layers_that_differ_already_are_refused():
    groups = (*_groups()[:-1], replace(_groups()[-1], size=640))
    with pytest.raises(UnsupportedArchitecture, match="whose layers are alike"):
        shapes_of(groups, "serve", LIMITS)
