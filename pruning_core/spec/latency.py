"""`LatencySpec`: at which shape, and how often, latency is measured. Torch-free."""

from __future__ import annotations

from functools import partial
from operator import is_

from pydantic import Field

from pruning_core.spec.frozen import Frozen

# A number of its own is a wish of the user's, and is measured in full: see `LatencySpec.narrow`.
_REPEATS = 20
_NARROW = 0.02
_USUAL = 8  # on a quiet machine


class LatencySpec(Frozen):
    """The input shape and the repeats with which dense and pruned latency are measured in turns."""

    batch: int = Field(default=8, ge=1, le=1024)
    length: int = Field(default=128, ge=4, le=8192, description="Tokens in each sequence, without padding.")
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads; ignored on a GPU.")
    repeats: int = Field(
        default=_REPEATS,
        ge=3,
        le=1000,
        description="Times that both are measured. Left at 20, measuring stops before once the ratio is known well enough.",
    )
    within: float | None = Field(
        default=None,
        exclude_if=partial(is_, None),
        ge=0,
        le=0.5,
        description="Stop before `repeats` once half the width of the 95 % interval of the ratio is at most this share of it; "
        "0: always measure `repeats` times. Null: 0.02 where repeats is left at 20, else 0.",
    )

    @property
    def narrow(self) -> float:
        """Half width of the ratio's interval, as a share of the ratio, at which measuring stops; 0: it never does."""
        if self.within is not None:
            return self.within
        return _NARROW if self.repeats == _REPEATS else 0.0

    @property
    def usual_repeats(self) -> int:
        """Number of repeats that are usually measured, for predictions."""
        return min(self.repeats, _USUAL) if self.narrow else self.repeats

    def at_most(self, repeats: int) -> LatencySpec:
        """Return the measurement with another number of repeats, which stops early if this one does."""
        return self.but(repeats=repeats, within=self.narrow)

    def for_frontier(self) -> LatencySpec:
        """Return the measurement for one of several checkpoints, which are all timed.

        A fixed number of repeats is quartered. One that is an upper bound is halved: the interval says how wide it came out.
        """
        return self.at_most(max(3, self.repeats // (2 if self.narrow else 4)))
