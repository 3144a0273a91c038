"""The smallest model that holds a quality floor: bisection over the share of the MACs that is kept. Torch-free.

Quality falls with the share, but not strictly: it is measured on finitely many samples. Bisection finds a share that holds the
floor beside one that does not, which is what can be promised; how close they are is the resolution.
"""

from __future__ import annotations

from collections.abc import Callable

from pruning_core.spec.artifacts import FLOOR_RESOLUTION


def shares_that_hold(holds: Callable[[float], bool]) -> list[float]:
    """Try shares between nothing and everything.

    Args:
        holds: Whether a model with this share of the MACs keeps the floor.

    Returns:
        The shares that held, ascending; where none did, the largest that was tried, alone.
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
