"""The versioned result: what was achieved, measured on the written files. Torch-free."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from pruning_core.spec import Frozen

Stage = Literal["load", "calibrate", "score", "search", "rearrange", "recover", "materialise", "evaluate", "latency", "bundle"]
STAGES: tuple[Stage, ...] = get_args(Stage)

# Share of a typical job's time; only the progress bar depends on it.
_STAGE_WEIGHT: dict[Stage, float] = {
    "load": 0.05,
    "calibrate": 0.03,
    "score": 0.17,
    "search": 0.01,
    "rearrange": 0.04,
    "recover": 0.25,
    "materialise": 0.03,
    "evaluate": 0.22,
    "latency": 0.18,
    "bundle": 0.02,
}


class Progress(Frozen):
    """Where a running job is: ``step`` of ``total`` in a stage."""

    stage: Stage
    step: int = Field(ge=0)
    total: int = Field(ge=1)

    @property
    def fraction(self) -> float:
        """Estimated share of the whole job that is done, in [0, 1]; never decreases from stage to stage."""
        before = sum(_STAGE_WEIGHT[stage] for stage in STAGES[: STAGES.index(self.stage)])
        return min(1.0, before + _STAGE_WEIGHT[self.stage] * min(self.step, self.total) / self.total)


class TargetReport(Frozen):
    """Requested and achieved target, both in the metric's own unit."""

    metric: Literal["sparsity", "macs", "params"]
    requested: float
    achieved: float
    tolerance: float


class SparsityReport(Frozen):
    """Fraction of the weights of the prunable linear layers that were removed or are zero."""

    achieved: float


class IntPair(Frozen):
    """A count of the dense and of the pruned model."""

    dense: int
    pruned: int


class QualityReport(Frozen):
    """The task's metric on the validation split. ``details`` holds further metrics of the pruned model."""

    metric: str
    dense: float
    pruned: float
    samples: int
    details: dict[str, float] = Field(default_factory=dict[str, float])


class LatencyReport(Frozen):
    """Median milliseconds of one forward, measured in turns dense, pruned, dense, pruned.

    ``*_iqr`` is the interquartile range of the same samples.
    """

    dense: float
    pruned: float
    speedup: float
    dense_iqr: float
    pruned_iqr: float
    batch: int
    length: int
    repeats: int
    threads: int
    device: str


class SecondsReport(Frozen):
    """Wall-clock seconds, in total and of each stage."""

    total: float
    by_stage: dict[Stage, float]


SolverStatus = Literal["converged", "max_iterations", "breakdown", "rejected", "skipped"]


class SublayerReport(Frozen):
    """Recovery of one sublayer. Residuals are relative to the target's energy, on held-out calibration tokens.

    Statuses: ``converged``; ``max_iterations``: the tolerance was not reached, the repair was kept because it lowered
    the residual; ``breakdown``: the solver failed, weights unrepaired; ``rejected``: the repair did not lower the
    held-out residual, weights unrepaired; ``skipped``: nothing to repair.
    """

    solver: str
    status: SolverStatus
    iterations: int
    residual_before: float | None = None
    residual_after: float | None = None


class LayerReport(Frozen):
    """One block: which heads and how many neurons stayed, and how the repair of each half went."""

    layer: int
    dense_heads: int
    kept_heads: int
    head_indices: tuple[int, ...]
    dense_neurons: int
    kept_neurons: int
    attention: SublayerReport
    ffn: SublayerReport


class DataReport(Frozen):
    """The calibration data: fingerprint of the exact token ids, and sizes."""

    fingerprint: str
    samples: int
    tokens: int
    mean_length: float


class Report(Frozen):
    """The result of one job. Counts and sizes are recounted from the written files, never taken from the plan."""

    version: Literal[1] = 1
    model: str
    task: str
    method: str
    recovery: str
    target: TargetReport
    sparsity: SparsityReport
    macs: IntPair
    parameters: IntPair
    bytes: IntPair
    quality: QualityReport
    latency_ms: LatencyReport
    seconds: SecondsReport
    layers: tuple[LayerReport, ...]
    data: DataReport
    peak_memory_bytes: int
    seed: int
    device: str
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()
