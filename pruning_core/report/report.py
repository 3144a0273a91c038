"""The versioned result: what was achieved, measured on the written files. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.report.products import ProductsReport
from pruning_core.report.progress import Stage
from pruning_core.report.training import TrainingReport
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.frozen import Frozen

# What sums of prices may lose or gain in float64.
_ROUNDING = 1e-9


class TargetReport(Frozen):
    """Requested and achieved target, both in the metric's own unit."""

    metric: Literal["sparsity", "pattern", "macs", "params", "latency"]
    requested: float
    achieved: float
    tolerance: float

    @property
    def met(self) -> bool:
        """Whether the target is met: never above the budget, and within the tolerance below it."""
        beyond = self.achieved - self.requested
        if self.metric in ("sparsity", "pattern"):
            beyond = -beyond
        return -self.tolerance <= beyond <= _ROUNDING


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
    lower_is_better: bool = Field(default=False, description="Whether less of the metric is better, as of perplexity.")
    details: dict[str, float] = Field(default_factory=dict[str, float])

    @property
    def label(self) -> str:
        """The metric's name, with its direction where less is better."""
        return f"{self.metric} (less is better)" if self.lower_is_better else self.metric

    @property
    def kept(self) -> float | None:
        """Share of the dense model's quality that was kept; of a metric of which less is better the inverse of its growth."""
        part, whole = (self.dense, self.pruned) if self.lower_is_better else (self.pruned, self.dense)
        return part / whole if whole > 0 else None


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
    dtype: str = Field(default="float32", description="What both models computed in.")
    measured: Literal["model", "blocks"] = Field(
        default="model",
        description="blocks: the sum of blocks measured one by one, without embeddings and head, of a model that is larger "
        "than the memory of its device.",
    )


class SecondsReport(Frozen):
    """Wall-clock seconds, in total and of each stage."""

    total: float
    by_stage: dict[Stage, float]


SolverStatus = Literal["converged", "jittered", "stagnated", "max_iterations", "breakdown", "non_finite", "rejected", "skipped"]


class SublayerReport(Frozen):
    """Recovery of one sublayer. Residuals are squared, ``||B - X W||^2 / ||B||^2``, on held-out calibration tokens.

    ``residual_before`` is of the pruned weights, ``residual_after`` of the weights as delivered. A repair is kept where its
    trial on the other samples lowers the residual on these; then all samples are fitted, these among them.

    Statuses, of the weights as delivered: ``converged``; ``jittered``: the system is singular to rounding and was solved with
    a multiple of the identity added; ``stagnated``: the solver was done before the residual of the system was as small as it
    should be; ``max_iterations``: the tolerance was not reached. Repairs of these were kept because they lowered the held-out
    residual. ``breakdown``: the solver failed, weights unrepaired; ``non_finite``: it was given NaN or infinity, weights
    unrepaired; ``rejected``: the repair did not lower the held-out residual, weights unrepaired; ``skipped``: nothing to
    repair.
    """

    solver: str
    status: SolverStatus
    iterations: int
    residual_before: float | None = None
    residual_after: float | None = None


class CrossReport(Frozen):
    """Cross-attention: which heads stayed, and how its repair went."""

    dense_heads: int
    kept_heads: int
    head_indices: tuple[int, ...]
    attention: SublayerReport


class LayerReport(Frozen):
    """One block: which heads and how many neurons stayed, and how the repair of each half went.

    Where query heads share a key and a value, heads are counted by what they share. A decoder's blocks follow its encoder's.
    """

    layer: int
    dense_heads: int
    kept_heads: int
    head_indices: tuple[int, ...]
    dense_neurons: int
    kept_neurons: int
    attention: SublayerReport
    ffn: SublayerReport
    cross: CrossReport | None = Field(default=None, description="Of a decoder's block that reads an encoder's output.")


class MatrixReport(Frozen):
    """One matrix under a pattern: the search for what stays, and the refit of it.

    Statuses as in `SublayerReport`, of the selection, unless the refit broke down or was rejected. Residuals are relative to
    the target's energy, on held-out calibration tokens: of the dense weights on the support, and of what is delivered.
    """

    name: str
    weights: int
    nonzeros: int
    status: SolverStatus
    iterations: int = Field(description="ADMM steps; 0 for selections that do not iterate.")
    refit_steps: int
    primal: float | None = Field(default=None, description="||W - D|| / ||D|| when ADMM ended.")
    dual: float | None = Field(default=None, description="rho ||D - D before|| / ||V|| when ADMM ended.")
    residual_before: float
    residual_after: float


class DenseRemainder(Frozen):
    """Weights of a matrix that no whole block covers: they stay dense."""

    name: str
    outputs: int = Field(description="The last so many outputs.")
    inputs: int = Field(description="The last so many inputs of all other outputs.")
    weights: int


class NormHistogram(Frozen):
    """Segments by their norm, each relative to the mean of its matrix's kept segments; the outer bins hold what is beyond."""

    edges: tuple[float, ...] = Field(description="Bounds of the bins, one more than there are bins.")
    counts: tuple[int, ...]
    zero: int = Field(description="Segments of norm zero.")


class SegmentsReport(Frozen):
    """Block sparsity: rows or columns of blocks that stayed, recounted from the written files."""

    segment: Literal["row", "column"]
    kept: int
    smaller: int = Field(description="Segments at the edge of a matrix that blocks do not divide.")
    lengths: tuple[int, ...] = Field(description="Weights of a segment, where it is whole.")
    emptied: tuple[str, ...] = Field(default=(), description="Matrices of which the threshold would have left nothing.")
    removed_heads: int = Field(default=0, description="Heads without weights on one side, removed physically.")
    removed_neurons: int = Field(default=0, description="As `removed_heads`.")
    norms: NormHistogram


class PatternReport(Frozen):
    """A sparsity pattern, recounted from the written files. Shapes stay: products that do not skip zeros are no faster."""

    pattern: str
    selection: str
    blocks: int = Field(description="Whole blocks in all prunable matrices; for unstructured, matrices.")
    violations: int = Field(description="Blocks that do not satisfy the pattern.")
    zeros: int
    prunable_weights: int
    nonzero_macs: int = Field(description="Multiply-accumulates that remain where zeros are skipped; macs counts them all.")
    dense_remainders: tuple[DenseRemainder, ...] = ()
    pool: tuple[str, ...] = Field(
        default=(), description="Arrangements allowed, one digit a weight: by output of the block, then input."
    )
    matrices: tuple[MatrixReport, ...]
    segments: SegmentsReport | None = Field(default=None, description="For block-lasso; its `blocks` are segments.")
    products: ProductsReport | None = Field(default=None, description="Dense and sparse products, timed on the job's device.")


class DataReport(Frozen):
    """The calibration data: fingerprint of the exact token ids, and sizes."""

    fingerprint: str
    samples: int
    tokens: int
    mean_length: float


class MemoryReport(Frozen):
    """Where the weights were, with what that was decided by: what all of them would have needed, and what was free."""

    weights: Literal["resident", "paged"]
    needed_bytes: int
    free_bytes: int


class FloorReport(Frozen):
    """The quality floor in the metric's own unit, and what was kept of it."""

    kind: Literal["relative", "absolute"]
    requested: float
    required: float
    achieved: float
    lower_is_better: bool = Field(default=False, description="Whether the floor is the most that is allowed.")

    @property
    def held(self) -> bool:
        """Whether the floor is held."""
        return self.achieved <= self.required if self.lower_is_better else self.achieved >= self.required


class AcceptanceReport(Frozen):
    """What a fresh process with stock libraries, and nothing of Coppice, found in the written checkpoint.

    ``max_difference`` is that of its outputs from the worker's on held-out inputs, relative to the largest output.
    """

    loader: Literal["stock", "remote_code"]
    libraries: dict[str, str]
    samples: int
    max_difference: float
    tolerance: float
    parameters: int
    bytes: int
    latency_ms: LatencyReport | None = Field(default=None, description="Measured again, for targets of latency.")


class OnnxReport(Frozen):
    """The checkpoint as an ONNX graph, run by onnxruntime on the CPU; or why there is none."""

    status: Literal["ok", "failed"]
    reason: str | None = None
    path: str | None = None
    bytes: int | None = None
    max_difference: float | None = None
    latency_ms: float | None = Field(default=None, description="Median, at the shape and threads of the report's latency_ms.")
    latency_iqr: float | None = None


class CompressedReport(Frozen):
    """The checkpoint with its zeros left out, loaded in a fresh process and bit-identical; or why there is none."""

    status: Literal["ok", "failed"]
    reason: str | None = None
    path: str | None = None
    bytes: int | None = Field(default=None, description="Of its weight files; the report's are the dense layout's.")
    forms: dict[str, int] = Field(
        default_factory=dict[str, int],
        description="Prunable matrices by form: bits (one a weight), segments (one a segment), indices (N for every M), dense.",
    )


class Outcome(Frozen):
    """One checkpoint. Counts and sizes are recounted from the written files, never taken from the plan."""

    target: TargetReport
    sparsity: SparsityReport
    macs: IntPair
    parameters: IntPair
    bytes: IntPair
    quality: QualityReport
    latency_ms: LatencyReport
    layers: tuple[LayerReport, ...]
    layout: Layout = "per_layer"
    stored_dtype: str | None = Field(default=None, description="Type of the written weights, which plain loading computes in.")
    quality_floor: FloorReport | None = None
    acceptance: AcceptanceReport | None = None
    onnx: OnnxReport | None = None
    training: TrainingReport | None = Field(default=None, description="For tiers that train.")
    compressed: CompressedReport | None = None
    pattern: PatternReport | None = Field(default=None, description="For methods that keep shapes and zero weights.")


class FrontierPoint(Outcome):
    """One of several budgets of a job; ``path`` is its checkpoint's folder in the bundle, ``.`` for the first."""

    path: str


class Report(Outcome):
    """The result of one job. With several budgets, its own outcome is that of the first; ``frontier`` lists them all."""

    version: Literal[1] = 1
    model: str
    task: str
    method: str
    recovery: str
    seconds: SecondsReport
    data: DataReport
    peak_memory_bytes: int
    memory: MemoryReport | None = Field(default=None, description="Null in reports from before it was decided.")
    seed: int
    device: str
    versions: dict[str, str]
    frontier: tuple[FrontierPoint, ...] = ()
    warnings: tuple[str, ...] = ()

    def narrowed_to(self, outcome: Outcome) -> Report:
        """Give the report of one checkpoint of several: the same run, its outcome alone."""
        own = {name: getattr(outcome, name) for name in Outcome.model_fields}
        return self.model_copy(update={**own, "frontier": ()})
