"""Reweighted group Lasso: the proximal step against its optimality conditions, and the two defects of public code."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pruning_core.methods.block_lasso.penalty import GroupLasso, Groups
from pruning_core.methods.block_lasso.recipe import LassoRecipe
from pruning_core.methods.block_lasso.rising import RisingLasso
from pruning_core.patterns.segments import Segments
from pruning_core.spec.training import LassoTraining
from pruning_core.training.constraint import Moment

SHAPES = {"a": (6, 8), "b": (5, 10)}  # outputs, inputs; of b blocks divide neither


def made(*, options: LassoTraining | None = None, sparsity: float = 0.5, axis: int = 0, transposed: bool = False):
    """A constraint over two matrices with scales that differ from group to group."""
    generator = torch.Generator().manual_seed(0)
    weights, groups = {}, {}
    for name, (d, k) in SHAPES.items():
        stored = torch.randn(d, k, generator=generator)
        weights[name] = nn.Parameter(stored.T.contiguous()).T if transposed else nn.Parameter(stored)
        segments = Segments(4, axis)
        shape = segments.sizes((k, d)).shape
        groups[name] = Groups(segments, torch.rand(shape, generator=generator) + 0.5)
    chosen = options or LassoTraining(start="dense")
    return weights, GroupLasso(weights, groups, sparsity=sparsity, options=chosen), groups


def at(step: int, steps: int) -> Moment:
    return Moment(step, steps, 1e-4, 1e-4)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_proximal_step_satisfies_its_optimality_conditions(axis, transposed):
    """``0 in W - V + kappa d||W||``: kept groups are V less kappa along W, the others had norms of kappa at most."""
    weights, lasso, groups = made(axis=axis, transposed=transposed)
    lasso.begin(4)
    lasso.strength *= 4
    before = {name: groups[name].view(weight).detach().clone() for name, weight in weights.items()}
    lasso.after_step(at(1, 4))
    kept = lost = 0
    for name, weight in weights.items():
        own = groups[name]
        V, W = before[name], own.view(weight).detach()
        kappa = lasso.strength * lasso.gammas[name] / own.scales  # in the plain norm
        norms = {key: own.segments.sums(value.square()).sqrt() for key, value in (("V", V), ("W", W))}
        for place in torch.ones_like(kappa).nonzero().tolist():
            spot = torch.zeros_like(kappa)
            spot[tuple(place)] = 1
            inside = own.segments.spread(spot, tuple(V.shape)).bool()
            shrink, size = float(kappa[tuple(place)]), float(norms["W"][tuple(place)])
            if size == 0:
                lost += 1
                assert float(norms["V"][tuple(place)]) <= shrink * (1 + 1e-5)
            else:
                kept += 1
                torch.testing.assert_close(W[inside] - V[inside] + shrink * W[inside] / size, torch.zeros(int(inside.sum())))
    assert kept
    assert lost


def test_every_penalised_weight_receives_its_shrinkage():
    weights, lasso, _ = made()
    lasso.begin(50)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    lasso.after_step(at(1, 50))
    for name, weight in weights.items():
        assert (weight.abs() < before[name].abs()).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 40])
@pytest.mark.parametrize("milestones", [1, 4, 8])
def test_milestones_are_reached_whatever_the_number_of_steps(steps, milestones):
    weights, lasso, _ = made(options=LassoTraining(start="dense", milestones=milestones))
    lasso.begin(steps)
    seen = [lasso.gammas["a"].clone()]
    for step in range(steps):
        with torch.no_grad():
            weights["a"].mul_(1.1)
        lasso.after_step(at(step, steps))
        if not torch.equal(lasso.gammas["a"], seen[-1]):
            seen.append(lasso.gammas["a"].clone())
    assert len(seen) - 1 == min(milestones, steps)
    assert lasso.reweighted == 1 + min(milestones, steps)


def test_reweighting_makes_small_groups_vanish_and_leaves_large_ones():
    """Without a gradient the groups below the target's threshold end at zero, and the largest hardly shrink."""
    weights, lasso, groups = made(options=LassoTraining(start="dense", milestones=100))
    steps = 100
    lasso.begin(steps)
    norms = {name: groups[name].norms(weight) for name, weight in weights.items()}
    for step in range(steps):
        lasso.after_step(at(step, steps))
    threshold = torch.cat([own.flatten() for own in norms.values()]).median()
    for name, weight in weights.items():
        after = groups[name].norms(weight)
        assert (after[norms[name] < 0.95 * threshold] == 0).all()
        large = norms[name] > 2.0 * threshold
        assert (after[large] > 0.8 * norms[name][large]).all()


def test_one_threshold_meets_the_target_and_no_matrix_is_emptied():
    weights, lasso, groups = made(sparsity=0.6)
    with torch.no_grad():
        weights["a"].mul_(1e-3)
    lasso.begin(10)
    lasso.finish()
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    total = sum(weight.numel() for weight in weights.values())
    assert 0.6 <= zeros / total < 0.6 + 4 / total + 1e-6
    assert int(groups["a"].segments.held(groups["a"].view(weights["a"])).sum()) == 1


@pytest.mark.parametrize("kind", [GroupLasso, RisingLasso])
def test_its_state_can_be_taken_up_again(kind):
    weights, _, groups = made()
    options = LassoTraining(start="dense")
    lasso = kind(weights, groups, sparsity=0.5, options=options)
    lasso.begin(10)
    for step in range(4):
        lasso.after_step(at(step, 10))
    copies = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    again = kind(copies, groups, sparsity=0.5, options=options)
    again.begin(10)
    again.restore({name: tensor.clone() for name, tensor in lasso.tensors().items()})
    for step in range(4, 10):
        lasso.after_step(at(step, 10))
        again.after_step(at(step, 10))
    assert all(torch.equal(weights[name], copies[name]) for name in weights)
    assert again.measures() == lasso.measures()


def test_the_recipe_shrinks_and_then_holds_the_support():
    weights, _, groups = made()
    recipe = LassoRecipe(groups, 0.5, LassoTraining(start="dense"))
    constraint = recipe.constraint(weights)
    constraint.begin(8)
    phases = []
    for step in range(8):
        constraint.before_forward(at(step, 8))
        phases.append(constraint.phase)
        with torch.no_grad():
            for weight in weights.values():
                weight.add_(0.01)
        constraint.after_step(at(step, 8))
    constraint.finish()
    assert phases == ["lasso"] * 4 + ["fixed"] * 4
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    assert 0.5 <= zeros / 98 < 0.6


def rising(steps, **options):
    weights, _, groups = made()
    lasso = RisingLasso(weights, groups, sparsity=0.5, options=LassoTraining(start="dense", **options))
    lasso.begin(steps)
    return weights, lasso, groups


def test_a_rising_threshold_leaves_what_is_far_above_it_as_it_was():
    weights, lasso, groups = rising(40)
    before = {name: groups[name].norms(weight) for name, weight in weights.items()}
    for step in range(40):
        lasso.after_step(at(step, 40))
    threshold = torch.cat([own.flatten() for own in before.values()]).median()
    after = {name: groups[name].norms(weight) for name, weight in weights.items()}
    for name, own in before.items():
        far = own > 1.3 * threshold
        assert bool(far.any())
        torch.testing.assert_close(after[name][far], own[far])
    share = sum(int((own == 0).sum()) for own in after.values()) / sum(own.numel() for own in after.values())
    assert 0.3 < share <= 0.6


def test_a_small_group_that_a_strong_gradient_defends_stays_and_a_larger_one_goes():
    """A step that moves each weight back by the learning rate stands for AdamW under a gradient that keeps its sign."""
    steps, rate = 200, 2e-2
    weights, lasso, groups = rising(steps)
    name = "a"
    norms = groups[name].norms(weights[name])
    # The smallest group of all, of full size.
    place = [int(value) for value in (norms == norms.min()).nonzero()[0]]
    spot = torch.zeros_like(norms)
    spot[tuple(place)] = 1
    own = groups[name]
    inside = own.segments.spread(spot, tuple(own.view(weights[name]).shape)).bool()
    dense = own.view(weights[name]).detach().clone()
    for step in range(steps):
        with torch.no_grad():
            view = own.view(weights[name])
            back = (dense - view).clamp(-rate, rate)
            view.add_(torch.where(inside, back, torch.zeros_like(back)))
        lasso.after_step(Moment(step, steps, rate, rate))
    after = own.norms(weights[name])
    assert float(after[tuple(place)]) > 0.5 * float(norms[tuple(place)])
    larger = norms > norms.min()
    assert bool((after[larger] == 0).any())
    assert lasso.measures()["travel"] > 1


def test_little_travel_is_told():
    weights, lasso, _ = rising(10)
    for step in range(10):
        lasso.after_step(at(step, 10))
    assert 0 < lasso.measures()["travel"] < 1
    assert weights
