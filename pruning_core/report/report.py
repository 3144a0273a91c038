"""`Report`, the versioned result: what was achieved, measured on the written files. Torch-free."""

from __future__ import annotations

from functools import partial
from operator import eq, is_
from typing import Literal

from pydantic import Field

from pruning_core.report.adapter import AdapterReport
from pruning_core.report.also import AlsoReport
from pruning_core.report.engines import EngineReport, ExportReport
from pruning_core.report.healing import HealingReport
from pruning_core.report.latency import LatencyReport
from pruning_core.report.ledger import LedgerReport
from pruning_core.report.outlook import OutlookReport
from pruning_core.report.products import ProductsReport
from pruning_core.report.progress import Stage
from pruning_core.report.quality import FloorReport, QualityReport
from pruning_core.report.reproduction import ReproductionReport
from pruning_core.report.statistics import StatisticsReport
from pruning_core.report.storage import StorageReport
from pruning_core.report.target import TargetReport
from pruning_core.report.training import TrainingReport
from pruning_core.report.vocabulary import VocabularyReport
from pruning_core.report.where import WhereReport
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.frozen import Frozen


class SparsityReport(Frozen):
    """The fraction of the weights of the prunable linear layers that were removed or are zero."""

    achieved: float


class IntPair(Frozen):
    """A count, for the dense and for the pruned model."""

    dense: int
    pruned: int


class SecondsReport(Frozen):
    """Wall-clock seconds, in total and by stage."""

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
    repair; where residuals are given, no unit was removed here, and a refit that would have made up for earlier sublayers
    did not lower the held-out residual, so that the weights are the dense model's.
    """

    solver: str
    status: SolverStatus
    iterations: int
    residual_before: float | None = None
    residual_after: float | None = None


class CrossReport(Frozen):
    """The cross-attention of one block: the heads that stayed, and its repair."""

    dense_heads: int
    kept_heads: int
    head_indices: tuple[int, ...]
    attention: SublayerReport


class ExpertsReport(Frozen):
    """The experts of one block that stayed."""

    dense: int
    kept: int
    indices: tuple[int, ...]


class LayerReport(Frozen):
    """One block: the heads and the number of neurons that stayed, and the repair of each sublayer.

    Where query heads share a key and a value, each such group counts as one head. Decoder blocks follow the encoder's blocks.
    """

    layer: int
    dense_heads: int
    kept_heads: int
    head_indices: tuple[int, ...]
    dense_neurons: int
    kept_neurons: int
    attention: SublayerReport
    ffn: SublayerReport
    cross: CrossReport | None = Field(
        default=None, description="The cross-attention of a decoder block that reads an encoder's output."
    )
    experts: ExpertsReport | None = Field(
        default=None,
        exclude_if=partial(is_, None),
        description="Of a mixture of experts, whose neurons are counted together. Left out for other models.",
    )

    @property
    def lost_attention(self) -> bool:
        """Whether the attention is absent while the FFN stays."""
        return self.kept_heads == 0 and self.dense_heads > 0 and self.kept_neurons > 0


class MatrixReport(Frozen):
    """One matrix whose weights were pruned in place: the selection of its support, and the refit of the weights on it.

    The status is the selection's, unless the refit broke down or was rejected; the values are those of `SublayerReport`.
    Residuals are relative to the target's energy, on held-out calibration tokens: ``residual_before`` of the dense weights on
    the support, ``residual_after`` of the weights that are delivered.
    """

    name: str
    weights: int
    nonzeros: int
    status: SolverStatus
    iterations: int = Field(description="Number of ADMM steps; 0 for selections that do not iterate.")
    refit_steps: int
    primal: float | None = Field(default=None, description="||W - D|| / ||D|| when ADMM ended.")
    dual: float | None = Field(default=None, description="rho ||D - D before|| / ||V|| when ADMM ended.")
    residual_before: float
    residual_after: float


class DenseRemainder(Frozen):
    """The weights of a matrix that stay dense because no whole block covers them."""

    name: str
    outputs: int = Field(description="Number of the last outputs that stay dense.")
    inputs: int = Field(description="Number of the last inputs that stay dense, for all other outputs.")
    weights: int


class NormHistogram(Frozen):
    """Histogram of the norms of kept segments. Norms are relative to the mean of their matrix; outer bins are open."""

    edges: tuple[float, ...] = Field(description="Bounds of the bins, one more than there are counts.")
    counts: tuple[int, ...]
    zero: int = Field(description="Number of segments that are zero.")


class SegmentsReport(Frozen):
    """Block sparsity: the segments (rows or columns of blocks) that stayed, recounted from the written files."""

    segment: Literal["row", "column"]
    kept: int
    smaller: int = Field(description="Number of smaller segments, at the edges of matrices that blocks do not divide.")
    lengths: tuple[int, ...] = Field(description="Numbers of weights in a whole segment.")
    emptied: tuple[str, ...] = Field(
        default=(), description="Matrices that the threshold would have emptied: one segment was kept."
    )
    removed_heads: int = Field(default=0, description="Heads that were removed because they had no weights left on one side.")
    removed_neurons: int = Field(default=0, description="Neurons that were removed for the same reason.")
    norms: NormHistogram


class PatternReport(Frozen):
    """A sparsity pattern, recounted from the written files. Shapes stay, so products that do not skip zeros are no faster."""

    pattern: str
    selection: str
    blocks: int = Field(description="Number of whole blocks in all prunable matrices; of matrices, for unstructured.")
    violations: int = Field(description="Number of blocks that do not satisfy the pattern.")
    zeros: int
    prunable_weights: int
    nonzero_macs: int = Field(description="Multiply-accumulates that remain if zeros are skipped; macs counts all.")
    dense_remainders: tuple[DenseRemainder, ...] = ()
    pool: tuple[str, ...] = Field(
        default=(), description="Allowed arrangements, one digit for each weight: by the block's output, then input."
    )
    matrices: tuple[MatrixReport, ...]
    segments: SegmentsReport | None = Field(default=None, description="For block-lasso, whose `blocks` are segments.")
    products: ProductsReport | None = Field(default=None, description="Timings on the job's device.")


class DataReport(Frozen):
    """The calibration data: a fingerprint of the exact token ids, and sizes."""

    fingerprint: str
    samples: int
    tokens: int
    mean_length: float
    self_written: int = Field(
        default=0, exclude_if=partial(eq, 0), description="Number of the samples that the dense model wrote itself."
    )


class MemoryReport(Frozen):
    """Where the weights were kept, and the figures that decided it: the memory that all of them need, and the free memory."""

    weights: Literal["resident", "paged"]
    needed_bytes: int
    free_bytes: int


class AcceptanceReport(Frozen):
    """The proof of the written checkpoint: what a fresh process found, with stock libraries and nothing of Coppice.

    ``max_difference`` is the largest difference of its outputs from the worker's, on held-out inputs, relative to the largest
    output.
    """

    loader: Literal["stock", "remote_code"]
    libraries: dict[str, str]
    samples: int
    max_difference: float
    tolerance: float
    parameters: int
    bytes: int
    latency_ms: LatencyReport | None = Field(default=None, description="The second measurement, for latency targets.")
    checks: tuple[str, ...] = Field(
        default=(),
        description="What else is as in the source: encode (the embeddings of sentence-transformers), labels, rope, "
        "generation, image processor, tokens, special tokens, tokenizer settings, chat template. Empty in earlier reports.",
    )


class OnnxReport(Frozen):
    """The checkpoint as an ONNX graph, run by onnxruntime on the CPU; or the reason why there is none."""

    status: Literal["ok", "failed"]
    reason: str | None = None
    path: str | None = None
    bytes: int | None = None
    max_difference: float | None = None
    latency_ms: float | None = Field(
        default=None, description="Median milliseconds, at the shape and threads of the report's latency_ms."
    )
    latency_iqr: float | None = None


class CompressedReport(Frozen):
    """The checkpoint without its zeros, loaded in a fresh process and found bit-identical; or the reason why there is none."""

    status: Literal["ok", "failed"]
    reason: str | None = None
    path: str | None = None
    bytes: int | None = Field(
        default=None, description="Bytes of its weight files; the report's bytes are those of the dense layout."
    )
    forms: dict[str, int] = Field(
        default_factory=dict[str, int],
        description="Number of prunable matrices by form of their index: bits (one for each weight), segments (one bit for "
        "each segment), indices (N for every M inputs), or dense.",
    )


class Outcome(Frozen):
    """The outcome of one checkpoint. Counts and sizes are recounted from the written files, never taken from the plan."""

    target: TargetReport
    sparsity: SparsityReport
    macs: IntPair
    parameters: IntPair
    bytes: IntPair
    quality: QualityReport
    latency_ms: LatencyReport
    layers: tuple[LayerReport, ...]
    layout: Layout = "per_layer"
    stored_dtype: str | None = Field(
        default=None, description="Data type of the written weights; plain loading computes in it."
    )
    quality_floor: FloorReport | None = None
    acceptance: AcceptanceReport | None = None
    onnx: OnnxReport | None = None
    training: TrainingReport | None = Field(default=None, description="For tiers that train.")
    healing: HealingReport | None = Field(default=None, description="Where recovery.heal asked for it.")
    compressed: CompressedReport | None = None
    exports: tuple[ExportReport, ...] = Field(default=(), description="Files of further formats: gguf, openvino and others.")
    engines: tuple[EngineReport, ...] = Field(default=(), description="The engines that the bundle was asked to run in.")
    where: WhereReport | None = Field(default=None, description="Where quality was lost. Null in earlier reports.")
    also: tuple[AlsoReport, ...] = Field(default=(), description="Further evaluation sets: evaluation.also.")
    ledger: LedgerReport | None = Field(default=None, description="Capabilities beside the task: evaluation.ledger.")
    pattern: PatternReport | None = Field(default=None, description="For methods that keep shapes and zero weights.")
    storage: StorageReport | None = Field(
        default=None,
        description="Types of the stored matrices, for a target in bytes. Null where all are floating-point numbers.",
    )


class FrontierPoint(Outcome):
    """The outcome for one of several targets; ``path`` is its checkpoint's folder in the bundle, ``.`` for the first."""

    path: str


class Report(Outcome):
    """The result of one job. With several targets, its own outcome is that of the first; ``frontier`` lists them all."""

    version: Literal[1] = 1
    name: str | None = Field(
        default=None,
        exclude_if=partial(is_, None),
        description="What the job was called when it began. Left out where nothing.",
    )
    model: str
    task: str
    method: str
    recovery: str
    seconds: SecondsReport
    data: DataReport
    peak_memory_bytes: int
    memory: MemoryReport | None = Field(default=None, description="Null in reports of earlier versions, which did not choose.")
    seed: int
    device: str
    versions: dict[str, str]
    reproduction: ReproductionReport | None = Field(
        default=None, description="What it takes to make the bundle again. Null in earlier reports."
    )
    statistics: StatisticsReport | None = Field(
        default=None,
        exclude_if=partial(is_, None),
        description="What was known of the dense model from an earlier run. Left out where no place for it was given.",
    )
    outlook: OutlookReport | None = Field(
        default=None,
        exclude_if=partial(is_, None),
        description="What other budgets would cost, by the scores alone. Left out for methods that zero weights, in the "
        "layout stock, and where a target in bytes rounds weights, too.",
    )
    adapter: AdapterReport | None = Field(
        default=None, exclude_if=partial(is_, None), description="The adapter that was merged into the model first."
    )
    vocabulary: VocabularyReport | None = Field(
        default=None, exclude_if=partial(is_, None), description="The vocabulary that was cut. Left out where it is whole."
    )
    frontier: tuple[FrontierPoint, ...] = ()
    warnings: tuple[str, ...] = ()

    def narrowed_to(self, outcome: Outcome) -> Report:
        """Return the report of one of several checkpoints: the same run, with the outcome of that checkpoint alone."""
        again = None if self.reproduction is None else self.reproduction.from_below()
        return self.but(**{name: getattr(outcome, name) for name in Outcome.model_fields}, frontier=(), reproduction=again)
