import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import Budget, CurveBudget, budget_for, kept_macs
from pruning_core.errors import TargetUnreachable
from pruning_core.search.align import BLOCK, align
from pruning_core.search.cost_curves import search_curves
from pruning_core.search.exact import search_budget
from pruning_core.search.mask import search_mask
from pruning_core.search.rearrange import rearrange_units
from pruning_core.spec.targets import KeepTarget, SparsityTarget
from tests.oracles import head_group, neuron_group

GROUPS = (
    UnitGroup(0, "head", 3, 4, 8, 128, 140),
    UnitGroup(0, "neuron", 4, 1, 8, 16, 17),
    UnitGroup(1, "head", 2, 4, 8, 128, 140),
    UnitGroup(1, "neuron", 3, 1, 8, 16, 17),
)
UNITS = sum(group.size for group in GROUPS)


def _brute_force(importance, budget):
    """The best total over every one of the 2^units masks that keep each group's floor."""
    sizes = [group.size for group in GROUPS]
    best = -1.0
    for bits in itertools.product((False, True), repeat=UNITS):
        kept = torch.tensor(bits).split(sizes)
        counts = [int(k.sum()) for k in kept]
        if any(count < group.floor for count, group in zip(counts, GROUPS, strict=True)):
            continue
        if budget.spent(counts) <= budget.limit * (1 + 1e-9):
            best = max(best, sum(float(i[k].sum()) for i, k in zip(importance, kept, strict=True)))
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "target", [KeepTarget(metric="macs", keep=0.5), SparsityTarget(sparsity=0.3), KeepTarget(metric="macs", keep=0.75)]
)
def test_search_finds_the_optimum_over_all_masks(seed, target):
    generator = torch.Generator().manual_seed(seed)
    importance = [torch.rand(group.size, generator=generator) for group in GROUPS]
    budget = budget_for(target, GROUPS, total_params=2000, length=5.0)
    mask = search_budget(importance, GROUPS, budget)
    kept = sum(float(i[k].sum()) for i, k in zip(importance, mask.kept, strict=True))
    assert kept == pytest.approx(_brute_force(importance, budget), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(keep=st.floats(0.4, 0.99), length=st.floats(1, 200), seed=st.integers(0, 1000))
def test_search_never_exceeds_the_budget_and_wastes_less_than_a_neuron(keep, length, seed):
    importance = [torch.rand(group.size, generator=torch.Generator().manual_seed(seed)) for group in GROUPS]
    budget = budget_for(KeepTarget(metric="macs", keep=keep), GROUPS, total_params=2000, length=length)
    counts = search_budget(importance, GROUPS, budget).counts()
    assert all(count >= group.floor for count, group in zip(counts, GROUPS, strict=True))
    full = kept_macs(GROUPS, [g.size for g in GROUPS], length)
    assert kept_macs(GROUPS, counts, length) <= keep * full + 1
    every_neuron_kept = counts[1] == 4 and counts[3] == 3
    assert every_neuron_kept or budget.spent(counts) + budget.prices[1] > budget.limit


def test_search_refuses_prices_that_differ_within_a_kind():
    importance = [torch.ones(group.size) for group in GROUPS]
    with pytest.raises(ValueError, match="one price for every head"):
        search_budget(importance, GROUPS, Budget((1.0, 1.0, 2.0, 1.0), 6.0))


WIDE = tuple(
    group
    for layer in range(3)
    for group in (head_group(layer, heads=4, head_size=16, hidden=64), neuron_group(layer, neurons=260, hidden=64))
)


@settings(max_examples=60, deadline=None)
@given(keep=st.floats(0.3, 0.99), tolerance=st.sampled_from([1e-4, 0.002, 0.01, 0.05]), seed=st.integers(0, 1000))
def test_aligned_widths_meet_the_target_and_lose_next_to_nothing(keep, tolerance, seed):
    generator = torch.Generator().manual_seed(seed)
    importance = [torch.rand(group.size, generator=generator) ** 2 for group in WIDE]
    target = KeepTarget(metric="macs", keep=keep, tolerance=tolerance)
    budget = budget_for(target, WIDE, total_params=200_000, length=32.0)
    exact = search_budget(importance, WIDE, budget)
    mask = align(exact, importance, WIDE, budget)
    before, after = exact.counts(), mask.counts()
    assert after[::2] == before[::2]
    assert budget.spent(after) <= budget.limit * (1 + 1e-9)
    full = kept_macs(WIDE, [group.size for group in WIDE], 32.0)
    reached, exactly = (kept_macs(WIDE, counts, 32.0) / full for counts in (after, before))
    assert reached >= min(exactly, keep - tolerance)
    if after != before:
        assert all(count % BLOCK == 0 or count == 260 for count in after[1::2])
    # Less than a block a layer is taken, and given back to whoever makes most of it.
    assert all(-BLOCK < new - old <= 2 * BLOCK for new, old in zip(after, before, strict=True))
    for values, flags, count in zip(importance[1::2], mask.kept[1::2], after[1::2], strict=True):
        assert float(values[flags].sum()) == pytest.approx(float(values.sort(descending=True).values[:count].sum()))


def test_widths_are_aligned_only_where_the_tolerance_has_room_for_a_block():
    importance = [torch.rand(group.size, generator=torch.Generator().manual_seed(1)) for group in WIDE]
    aligned = []
    for tolerance in (1e-5, 0.05):
        target = KeepTarget(metric="macs", keep=0.5, tolerance=tolerance)
        budget = budget_for(target, WIDE, total_params=200_000, length=32.0)
        counts = align(search_budget(importance, WIDE, budget), importance, WIDE, budget).counts()
        aligned.append(all(count % BLOCK == 0 for count in counts[1::2]))
    assert aligned == [False, True]


def _naive_rearrange(gradients, kept):
    """The definition, with every norm computed from scratch."""
    pruned = {i for i in range(len(kept)) if not kept[i]}
    order = sorted((i for i in range(len(kept)) if kept[i]), key=lambda i: float(gradients[:, i].square().sum()))

    def norm(units):
        return float(gradients[:, sorted(units)].double().sum(1).square().sum())

    for unit in order:
        best = min(pruned | {unit}, key=lambda drop: norm((pruned | {unit}) - {drop}))
        if norm((pruned | {unit}) - {best}) < norm(pruned):
            pruned = (pruned | {unit}) - {best}
    return torch.tensor([i not in pruned for i in range(len(kept))])


@pytest.mark.parametrize("seed", range(6))
def test_rearrangement_is_the_greedy_of_its_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(16, 12, generator=generator)
    kept = torch.rand(12, generator=generator) > 0.5
    arranged = rearrange_units(gradients, kept)
    assert torch.equal(arranged, _naive_rearrange(gradients, kept))
    assert arranged.sum() == kept.sum()
    before, after = (gradients[:, ~k].sum(1).square().sum() for k in (kept, arranged))
    assert after <= before


@pytest.mark.parametrize("kept", [torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)])
def test_rearrangement_of_all_or_nothing_changes_nothing(kept):
    assert torch.equal(rearrange_units(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), kept), kept)


def _curves(generator):
    """Curves with a constant that only an empty or smallest sublayer saves, and an odd step."""
    curves = []
    for group in GROUPS:
        steps = torch.rand(group.size + 1, generator=generator).cumsum(0)
        curves.append(
            tuple((count, float(steps[count]) + (2.0 if count else 0.5)) for count in range(group.floor, group.size + 1))
        )
    return tuple(curves)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.55, 0.7, 0.9])
def test_search_under_curves_finds_the_best_counts(seed, share):
    generator = torch.Generator().manual_seed(seed)
    importance = [torch.rand(group.size, generator=generator) for group in GROUPS]
    curves = _curves(generator)
    budget = CurveBudget(curves, share * sum(curve[-1][1] for curve in curves))
    best = max(
        sum(
            float(values.sort(descending=True).values[:count].sum())
            for values, (count, _) in zip(importance, choice, strict=True)
        )
        for choice in itertools.product(*curves)
        if sum(cost for _, cost in choice) <= budget.limit
    )
    mask = search_curves(importance, budget)
    spent = sum(dict(curve)[count] for curve, count in zip(curves, mask.counts(), strict=True))
    assert spent <= budget.limit * (1 + 1e-9)
    assert sum(float(i[k].sum()) for i, k in zip(importance, mask.kept, strict=True)) == pytest.approx(best, rel=1e-3)


def test_units_of_a_kind_may_differ_in_price():
    groups = (
        UnitGroup(0, "head", 3, 4, 8, 128, 140),
        UnitGroup(0, "neuron", 6, 1, 8, 16, 17),
        UnitGroup(1, "head", 2, 8, 8, 256, 280),
    )
    generator = torch.Generator().manual_seed(0)
    importance = [torch.rand(group.size, generator=generator) for group in groups]
    budget = Budget((128.0, 16.0, 256.0), 600.0)
    mask = search_mask(importance, groups, budget)
    counts = mask.counts()
    assert budget.spent(counts) <= 600
    assert counts[0] >= 1
    assert counts[2] >= 1

    def kept(counts):
        return sum(float(v.sort(descending=True).values[:n].sum()) for v, n in zip(importance, counts, strict=True))

    best = max(
        kept(tried)
        for tried in itertools.product(range(1, 4), range(7), range(1, 3))
        if budget.spent(tried) <= 600 * (1 - 3 / 20_000)
    )
    assert kept(counts) >= best


def _linear_curves(prices):
    return tuple(
        tuple((count, count * price) for count in range(group.floor, group.size + 1))
        for group, price in zip(GROUPS, prices, strict=True)
    )


@pytest.mark.parametrize("share", [0.0, -1.0, 0.5, 0.999])
def test_curves_that_nothing_fits_under_are_unreachable(share):
    importance = [torch.ones(group.size) for group in GROUPS]
    curves = _linear_curves([2.0, 1.0, 3.0, 1.0])
    least = CurveBudget(curves, 1.0).least
    with pytest.raises(TargetUnreachable, match="no combination of widths fits") as caught:
        search_curves(importance, CurveBudget(curves, share * least))
    assert caught.value.param == "target"


def test_the_cheapest_counts_fit_where_rounding_to_bins_alone_is_against_them():
    importance = [torch.rand(group.size, generator=torch.Generator().manual_seed(0)) for group in GROUPS]
    curves = _linear_curves([2.0001, 1.0, 3.0003, 1.0])
    mask = search_curves(importance, CurveBudget(curves, CurveBudget(curves, 1.0).least))
    assert mask.counts() == [1, 0, 1, 0]
    for values, flags in zip(importance, mask.kept, strict=True):
        assert flags.sum() == 0 or int(values.argmax()) == int(flags.nonzero()[0, 0])


@pytest.mark.parametrize("limit", [0.0, 4.9])
def test_prices_that_the_floors_are_above_are_unreachable(limit):
    importance = [torch.ones(group.size) for group in GROUPS]
    with pytest.raises(TargetUnreachable, match="what each sublayer must keep costs 5 "):
        search_budget(importance, GROUPS, Budget((2.5, 1.0, 2.5, 1.0), limit))
