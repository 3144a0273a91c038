"""Search for the smallest model that holds a quality floor: bisection over the share of the MACs that is kept. Torch-free.

Quality falls with the share, but not strictly: it is measured on finitely many samples. Bisection finds a share that holds the
floor next to one that does not. No more can be promised; the distance between the two is the resolution.
"""

from __future__ import annotations

from collections.abc import Callable

from pruning_core.spec.artifacts import FLOOR_RESOLUTION


def shares_that_hold(holds: Callable[[float], bool]) -> list[float]:
    """Try shares between 0 and 1 by bisection.

    Args:
        holds: Returns whether a model with this share of the MACs holds the floor.

    Returns:
        The shares that hold the floor, ascending; if none does, only the largest share that was tried.
    """
    low, high = 0.0, 1.0
    held: list[float] = []
    while high - low > FLOOR_RESOLUTION:
        middle = (low + high) / 2
        if holds(middle):
            held.append(middle)
            high = middle
        else:
            low = middle
    return sorted(held) or [low]
