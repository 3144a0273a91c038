"""Prices of units that are removed one after the other, against the optimum by brute force."""

from __future__ import annotations

import itertools

import pytest
import torch

from pruning_core.linalg.removal import removal_costs


def problem(units: int = 6, width: int = 1, outputs: int = 5, seed: int = 0):
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn(200, units * width, generator=draws) @ torch.randn(units * width, units * width, generator=draws)
    gradients = torch.randn(200, outputs, generator=draws) @ torch.randn(outputs, outputs, generator=draws)
    return rows.T @ rows / 200, gradients.T @ gradients, torch.randn(units * width, outputs, generator=draws)


def least_loss(G, H, W, gone: list[int], damping: float) -> float:
    """Solve for the change of all rows whose removed rows are the negative weights, by its normal equations."""
    A = G.double() + damping * G.diagonal().mean() * torch.eye(len(G))
    stays = [row for row in range(len(G)) if row not in gone]
    change = torch.zeros_like(W, dtype=torch.float64)
    change[gone] = -W[gone].double()
    if stays:
        change[stays] = torch.linalg.solve(A[stays][:, stays], A[stays][:, gone] @ W[gone].double())
    return float(torch.trace(change.T @ A @ change @ H.double()))


@pytest.mark.parametrize(("width", "seed"), [(1, 0), (1, 1), (3, 2), (3, 3)])
def test_the_first_price_is_the_least_loss_of_removing_that_unit(width: int, seed: int) -> None:
    G, H, W = problem(width=width, seed=seed)
    costs = removal_costs(G, H, W, unit_width=width, own=torch.zeros(6), damping=0.01)
    first = int(costs.argmin())
    alone = [least_loss(G, H, W, [*range(unit * width, (unit + 1) * width)], 0.01) for unit in range(6)]
    assert first == min(range(6), key=alone.__getitem__)
    assert float(costs[first]) == pytest.approx(min(alone), rel=1e-3)


def test_the_prices_of_the_first_units_sum_to_the_loss_of_removing_them_together() -> None:
    G, H, W = problem(seed=4)
    costs = removal_costs(G, H, W, unit_width=1, own=torch.zeros(6), damping=0.01)
    order = costs.argsort().tolist()
    for count in (1, 2, 3):
        together = least_loss(G, H, W, order[:count], 0.01)
        # Where a later price was lower than the one before, it counts as that one.
        assert float(costs[order[:count]].sum()) >= together * (1 - 1e-3)
    exact = [least_loss(G, H, W, order[: count + 1], 0.01) - least_loss(G, H, W, order[:count], 0.01) for count in range(6)]
    rising = list(itertools.accumulate(exact, max))
    assert costs[order].tolist() == pytest.approx(rising, rel=1e-2)


def test_of_two_units_that_say_the_same_the_second_is_dear_once_the_first_is_gone() -> None:
    """The diagonal of the Fisher cannot know: both look cheap, or both look dear."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 4, generator=draws)
    rows[:, 1] = rows[:, 0]
    G, H, W = rows.T @ rows / 500, torch.eye(3), torch.eye(4, 3)
    W[1] = W[0]
    W[3] = 0.5
    costs = removal_costs(G, H, W, unit_width=1, own=torch.zeros(4), damping=1e-3)
    one, other = sorted((float(costs[0]), float(costs[1])))
    assert one < 0.01, "the other takes over"
    assert other > 1, "nothing is left to take over"
    assert one < float(costs[3]) < other


def test_what_a_unit_costs_by_itself_is_added() -> None:
    G, H, W = problem(seed=5)
    own = torch.zeros(6)
    cheapest = int(removal_costs(G, H, W, unit_width=1, own=own, damping=0.1).argmin())
    own[cheapest] = 1e6
    assert int(removal_costs(G, H, W, unit_width=1, own=own, damping=0.1).argmax()) == cheapest


@pytest.mark.parametrize("count", [1, 2])
def test_inputs_and_gradients_that_are_zero_cost_nothing(count: int) -> None:
    costs = removal_costs(
        torch.zeros(count, count), torch.zeros(2, 2), torch.ones(count, 2), unit_width=1, own=torch.zeros(count), damping=0.0
    )
    assert costs.isfinite().all()
    assert float(costs.max()) < 1e-20
