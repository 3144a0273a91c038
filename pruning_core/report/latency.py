"""Reports of latency: medians of both models in turns, and how sure their ratio is. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen

Stopped = Literal["narrow", "repeats", "seconds"]


class SpeedupInterval(Frozen):
    """An interval of the speed-up, from the ratios of the turns: two of them, by rank, between which the median lies.

    It holds whatever the noise of the clock looks like, as long as turns don't depend on each other.
    """

    low: float
    high: float
    confidence: float = Field(description="For a fixed number of turns; a measurement that stops early has a little less.")

    @property
    def half_width(self) -> float:
        """Half of the width, as a share of the speed-up in its middle."""
        return (self.high - self.low) / (self.high + self.low)


class LatencyReport(Frozen):
    """Median milliseconds of one forward pass. Dense and pruned model take turns.

    ``*_iqr`` is the interquartile range of the same samples.
    """

    dense: float
    pruned: float
    speedup: float
    dense_iqr: float
    pruned_iqr: float
    batch: int
    length: int
    repeats: int = Field(description="Turns that were measured.")
    threads: int
    device: str
    dtype: str = Field(default="float32", description="Data type in which both models computed.")
    measured: Literal["model", "blocks"] = Field(
        default="model",
        description="model: the forward pass of the whole model. blocks: the sum of its blocks, measured one by one, without "
        "embeddings and head; for models that are larger than the memory of their device.",
    )
    interval: SpeedupInterval | None = Field(default=None, description="Of the speed-up. Null in earlier reports.")
    stopped: Stopped | None = Field(
        default=None,
        description="Why measuring ended: the interval was narrow enough (latency.within), all repeats were done, or they took "
        "too long. Null in earlier reports.",
    )
