"""The choice of one option for each of several items, under one limit: the multiple-choice knapsack problem.

It is solved by dynamic programming over the cost, divided into equal bins (Kellerer, Pferschy, Pisinger 2004, *Knapsack
Problems*, section 11.5). Costs are rounded up to bins, so the answer never exceeds the limit; rounding wastes at most one bin
for each item.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_BINS = 20_000

# Options of an item: the cost of each, and its value.
Options = Sequence[tuple[float, float]]


def choose_options(items: Sequence[Options], limit: float) -> list[int]:
    """Choose one option for each item, of largest total value within a limit of cost.

    Args:
        items: The options of each item; costs >= 0.
        limit: Largest total cost, > 0. The cheapest options of all items together must not exceed it.

    Returns:
        The index of each item's option. Where the cheapest options fit the limit, but not once each cost is rounded up, they
        are the answer.

    Cost: options x bins.
    """
    bin_cost = limit / _BINS
    best = torch.zeros(_BINS + 1, dtype=torch.float64)
    choices: list[Tensor] = []
    for options in items:
        reached = torch.full_like(best, -torch.inf)
        chosen = torch.zeros(_BINS + 1, dtype=torch.int16)
        for option, (cost, value) in enumerate(options):
            bins = -int(-cost // bin_cost)
            if bins > _BINS:
                continue
            offered = best[: _BINS + 1 - bins] + value
            better = offered > reached[bins:]
            reached[bins:] = torch.where(better, offered, reached[bins:])
            chosen[bins:] = torch.where(better, option, chosen[bins:].int()).to(torch.int16)
        best = reached
        choices.append(chosen)
    position = int(best.argmax())
    if not bool(best[position].isfinite()):
        return [min(range(len(own)), key=lambda option, own=own: own[option][0]) for own in items]
    found: list[int] = []
    for options, chosen in zip(reversed(items), reversed(choices), strict=True):
        option = int(chosen[position])
        position += int(-options[option][0] // bin_cost)
        found.append(option)
    return found[::-1]
