"""Segments of blocks: groups, projection, costs, thresholds and dead units, against explicit loops and dense solves."""

from __future__ import annotations

import itertools

import pytest
import torch

from pruning_core.arch.adapter import adapt
from pruning_core.patterns.segments import LargestSegments, Segments
from pruning_core.recovery.dead import remove_dead_
from pruning_core.search.segment_prices import gone_by_threshold, gone_uniformly, segment_costs
from pruning_core.spec.grammar import default_block, parse_block
from pruning_core.stats.linears import LinearStatistics
from tests import tiny

SHAPES = [
    (8, 4, Segments(4, 0)),
    (10, 3, Segments(4, 0)),
    (3, 10, Segments(4, 1)),
    (5, 8, Segments(8, 1)),
    (4, 6, Segments(9, 1)),
]


def groups(k: int, d: int, segments: Segments) -> list[list[tuple[int, int]]]:
    """List every segment's places, one by one."""
    size, other = (k, d) if segments.axis == 0 else (d, k)
    found = []
    for start, across in itertools.product(range(0, size, segments.length), range(other)):
        run = range(start, min(start + segments.length, size))
        found.append([(place, across) if segments.axis == 0 else (across, place) for place in run])
    return found


@pytest.mark.parametrize(("k", "d", "segments"), SHAPES)
def test_sums_sizes_and_places_are_those_of_explicit_groups(k, d, segments):
    values = torch.arange(k * d, dtype=torch.float64).view(k, d)
    wanted = sorted((sum(float(values[place]) for place in group), len(group)) for group in groups(k, d, segments))
    sums, sizes = segments.sums(values), segments.sizes((k, d))
    assert sorted(zip(sums.flatten().tolist(), sizes.flatten().int().tolist(), strict=True)) == wanted
    assert segments.count((k, d)) == sums.numel() == len(wanted)
    numbered = segments.spread(torch.arange(sums.numel()).view(sums.shape), (k, d))
    for group in groups(k, d, segments):
        assert len({int(numbered[place]) for place in group}) == 1
    assert len(numbered.unique()) == len(wanted)


@pytest.mark.parametrize(("k", "d", "segments"), SHAPES)
def test_the_projection_keeps_the_largest_segments_and_no_part_of_one(k, d, segments):
    energy = torch.rand(k, d, generator=torch.Generator().manual_seed(1))
    gone = k * d // 2
    support = LargestSegments(segments, gone).support(energy)
    held = {tuple(group): {bool(support[place]) for place in group} for group in map(tuple, groups(k, d, segments))}
    assert all(len(states) == 1 for states in held.values())
    means = {group: sum(float(energy[place]) for place in group) / len(group) for group in held}
    kept = [means[group] for group, states in held.items() if True in states]
    lost = [means[group] for group, states in held.items() if False in states]
    assert min(kept) >= max(lost)
    assert gone <= int((~support).sum()) < gone + segments.length


def test_the_projection_never_empties_a_matrix():
    segments = Segments(4, 0)
    energy = torch.ones(8, 3)
    energy[4:, 1] = 5
    support = LargestSegments(segments, 24).support(energy)
    assert int(support.sum()) == 4
    assert support[4:, 1].all()


def test_outputs_whose_errors_count_more_keep_more():
    energy = torch.ones(8, 2)
    support = LargestSegments(Segments(4, 0), 8, torch.tensor([1.0, 3.0])).support(energy)
    assert support[:, 1].all()
    assert not support[:, 0].any()


@pytest.mark.parametrize("segments", [Segments(3, 0), Segments(2, 1)])
def test_the_cost_of_a_segment_is_the_weighted_error_of_leaving_it_out(segments):
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(200, 7, generator=generator, dtype=torch.float64)
    X = X @ torch.randn(7, 7, generator=generator, dtype=torch.float64)
    X -= X.mean(0)
    W = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    counts = torch.rand(5, generator=generator)
    length = segments.length if segments.axis == 0 else 1
    padded = torch.nn.functional.pad(X, (0, -7 % length)).unflatten(1, (-1, length)).transpose(0, 1)
    statistics = LinearStatistics((padded.mT @ padded / 200).float(), counts)
    costs = segment_costs(W.float(), statistics, segments)
    wanted = []
    for group in groups(7, 5, segments):
        without = W.clone()
        for place in group:
            without[place] = 0
        error = (X @ (W - without)).square().mean(0)
        wanted.append(float((error * counts).sum()))
    assert sorted(costs.flatten().tolist()) == pytest.approx(sorted(wanted), rel=1e-3)


def test_one_threshold_takes_the_cheapest_segments_of_all_matrices():
    cheap, dear = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 0.5]])
    sizes = [torch.full_like(cheap, 4), torch.full_like(dear, 4)]
    assert gone_by_threshold([cheap, dear], sizes, 0.5) == (8, 4)
    assert gone_by_threshold([cheap, dear], sizes, 0.01) == (0, 4)
    assert gone_by_threshold([cheap, dear], sizes, 0.99) == (12, 4)  # the dearest of each stays
    assert sum(gone_by_threshold([cheap, dear], sizes, 0.6)) == 16  # whole segments, never fewer weights than asked for


def test_costs_count_by_the_weight_so_that_edges_are_not_cheaper():
    assert gone_by_threshold([torch.tensor([[4.0], [1.5]])], [torch.tensor([[4.0], [1.0]])], 0.5) == (4,)


def test_uniform_sparsity_is_that_of_every_matrix():
    assert gone_uniformly({"a": 10, "b": 100}, 0.25) == {"a": 3, "b": 25}


@pytest.mark.parametrize(
    ("text", "segment", "says"),
    [
        ("64", "row", "must be PxQ such as 64x64"),
        ("0x64", "row", "sides may be 1 to 1024"),
        ("64x4096", "row", "sides may be 1 to 1024"),
        ("64x1", "row", "single weights"),
        ("1x64", "column", "single weights"),
    ],
)
def test_blocks_that_are_none_are_refused(text, segment, says):
    with pytest.raises(ValueError, match=says):
        parse_block(text, segment)


def test_blocks_grow_with_the_width():
    assert [default_block(width, 4 * width, "row").length for width in (384, 768, 4096)] == [16, 32, 64]
    assert default_block(8, 8, "row").length == 8
    assert parse_block("16x32", "row").length == 32
    assert parse_block("16x32", "column").length == 16


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_dead_units_go_and_the_outputs_stay(family):
    model = tiny.build_model(family).requires_grad_(False)
    attention, ffn = adapt(model).sublayers[2:4]
    width = attention.unit_width
    attention.inputs[2].weight[:width] = 0  # the first head's values are their bias
    attention.output.weight[:, 2 * width : 3 * width] = 0  # nothing reads the third
    ffn.inputs[0].weight[:5] = 0
    ffn.output.weight[:, 10:12] = 0
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    before = model(**inputs).logits
    mask = remove_dead_(adapt(model), allowance=10**9)
    assert [int((~kept).sum()) for kept in mask.kept] == [0, 0, 2, 7]
    assert not mask.kept[2][[0, 2]].any()
    torch.testing.assert_close(model(**inputs).logits, before, rtol=1e-5, atol=1e-5)


def test_dead_units_go_only_as_far_as_the_target_allows():
    model = tiny.build_model("bert").requires_grad_(False)
    ffn = adapt(model).sublayers[1]
    ffn.inputs[0].weight[:5] = 0
    ffn.inputs[0].weight[7], ffn.output.weight[:, 7] = 0, 0
    mask = remove_dead_(adapt(model), allowance=2 * tiny.HIDDEN)
    assert int((~mask.kept[1]).sum()) == 3  # the one that is zero on both sides costs nothing
    assert not mask.kept[1][7]


def test_a_sublayer_keeps_one_unit():
    model = tiny.build_model("bert").requires_grad_(False)
    for sublayer in adapt(model).sublayers:
        sublayer.output.weight.zero_()
    assert remove_dead_(adapt(model), allowance=10**9).counts() == [1, 1, 1, 1]
