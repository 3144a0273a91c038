"""Targets: how much of a model may be kept, and in which metric. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pruning_core.spec.engines import ENGINE_TITLES, EngineName
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.registered import OneOf
from pruning_core.spec.sizes import Bytes, size_text
from pruning_core.spec.storage import StorageName


def _open_fraction(value: object) -> float:
    """Validate a number strictly between 0 and 1; an error says in one sentence what would be right."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        given = "text" if isinstance(value, str) else f"a {type(value).__name__}"
        raise ValueError(f"must be a number > 0 and < 1, got {given}")  # noqa: TRY004 - pydantic's protocol
    if not 0 < value < 1:  # NaN fails this too, and integers too large for a float are compared exactly
        shown = "a huge number" if abs(value) > 10**12 else value
        raise ValueError(f"must be > 0 and < 1, got {shown}")
    return float(value)


OpenFraction = Annotated[float, BeforeValidator(_open_fraction), Field(gt=0, lt=1)]


@dataclass(frozen=True, slots=True)
class TargetMetric:
    """The words for a target's metric. Its price and its recount are in `pruning_core.budgets.RULES`.

    Attributes:
        title: The metric and the meaning of its value, for a form.
        asked: The request, as a sentence without its end; ``{}`` stands for the share.
        came: The verb that follows the achieved share in a sentence.
        share_of: The words that follow a share in a list.
        removed: Whether the value is the share that is removed; else it is the share that may be kept.
        measured: Whether the metric is measured by a clock, which is noisy; else it is counted.
        absolute: Whether the value is a number of bytes, which may not be exceeded; else it is a share of the dense model.
    """

    title: str
    asked: str
    came: str
    share_of: str
    removed: bool = False
    measured: bool = False
    absolute: bool = False

    @property
    def field(self) -> str:
        """Name of the target's field that holds the value."""
        if self.absolute:
            return "at_most"
        return "sparsity" if self.removed else "keep"


# The registry: a metric is a row here and a row of `pruning_core.budgets.RULES`.
TARGET_METRICS: dict[str, TargetMetric] = {
    "sparsity": TargetMetric(
        "Sparsity: share of the prunable weights to remove",
        "Asked to remove {} of the prunable weights",
        "are gone",
        "sparsity",
        removed=True,
    ),
    "macs": TargetMetric(
        "MACs: share of the multiply-accumulates to keep", "Asked to keep at most {} of the MACs", "stayed", "of the MACs"
    ),
    "params": TargetMetric(
        "Parameters: share of all parameters to keep",
        "Asked to keep at most {} of the parameters",
        "stayed",
        "of the parameters",
    ),
    "latency": TargetMetric(
        "Latency: share of the dense latency to keep, measured",
        "Asked to keep at most {} of the latency",
        "stayed",
        "of the latency",
        measured=True,
    ),
    "pattern": TargetMetric(
        "Pattern: what the pattern of the method says",
        "Asked for {} of the weights in whole blocks to be zero",
        "are",
        "of the weights in whole blocks",
        removed=True,
    ),
    "bytes": TargetMetric(
        "Bytes: most bytes of the weight files, by widths and by the storage type of each matrix",
        "Asked to store at most {}",
        "are stored",
        "of weights",
        absolute=True,
    ),
}


MetricName = Annotated[str, OneOf(TARGET_METRICS)]


Phase = Literal["prefill", "decode"]


def target_verdict(metric: str, requested: float, achieved: float, where: str = "") -> str:
    """Return what was asked for and what was achieved, as a sentence without its end.

    Args:
        metric: The target's metric.
        requested: The target, in the metric's own unit.
        achieved: What came of it.
        where: Where it was measured, from `in_engine`; empty: on the job's device.
    """
    row = TARGET_METRICS[metric]
    if row.absolute:
        return f"{row.asked.format(size_text(requested))}; {size_text(achieved)} {row.came}"
    asked = row.asked.format(f"{100 * requested:.4g}%")
    return f"{asked}{f' {where}' if where else ''}; {100 * achieved:.2f}% {row.came}"


def amount_text(metric: str, amount: float) -> str:
    """Return a target's value in few characters: ``0.5``, or ``100 MB``."""
    return size_text(amount) if TARGET_METRICS[metric].absolute else f"{amount:g}"


def in_engine(engine: str, phase: Phase | None) -> str:
    """Return where a latency is measured, as words that follow it: ``of decode in vLLM``."""
    return f"{f'of {phase} ' if phase else ''}in {ENGINE_TITLES[engine]}"


def _is_unset(value: object) -> bool:
    return value is None


class SparsityTarget(Frozen):
    """Remove this fraction of the weights of the prunable linear layers; embeddings, task head and biases do not count."""

    metric: Literal["sparsity"] = "sparsity"
    sparsity: OpenFraction
    tolerance: float = Field(
        default=0.01, gt=0, le=0.1, description="How far the achieved sparsity may lie above the requested one."
    )

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the sparsity."""
        return self.sparsity


class KeepTarget(Frozen):
    """Keep at most this fraction of the metric.

    ``macs``: multiply-accumulates of the prunable blocks at the task's mean real sequence length.
    ``params``: all parameters of the model, embeddings and task head included.
    """

    metric: Literal["macs", "params"]
    keep: OpenFraction
    tolerance: float = Field(
        default=0.01, gt=0, le=0.1, description="How far the achieved fraction may lie below the requested one."
    )

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the fraction kept."""
        return self.keep


class LatencyTarget(Frozen):
    """Keep at most this fraction of the dense latency.

    It is measured on the job's device, at the spec's latency shape; or in an engine that people serve with, which then is one
    of ``artifacts.engines``.
    """

    metric: Literal["latency"]
    keep: OpenFraction
    tolerance: float = Field(
        default=0.05,
        gt=0,
        le=0.2,
        description="How far the achieved fraction may lie below the requested one, and above it when a fresh process "
        "measures it again; clocks are noisier than counts.",
    )
    # Left out where they are not set: a request without them is written as it was before there were any.
    engine: EngineName | None = Field(
        default=None,
        exclude_if=_is_unset,
        description="The engine in which the latency is planned, by a table measured there, and measured. Null: none.",
    )
    phase: Phase | None = Field(
        default=None,
        exclude_if=_is_unset,
        description="For models that generate text in an engine. prefill: reading a prompt; decode: writing tokens after it, "
        "which is meant where nothing is said.",
    )

    @model_validator(mode="after")
    def _phases_are_of_engines(self) -> LatencyTarget:
        if self.phase is not None and self.engine is None:
            raise ValueError("phase is for a latency in an engine; name the engine too, or leave phase out")
        return self

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the fraction kept."""
        return self.keep


class PatternTarget(Frozen):
    """Prune every block to its pattern: this share of the weights that whole blocks cover is zero.

    The target follows from ``method.pattern`` and need not be given. Where a width is no multiple of the block's, the remaining
    weights stay dense. They count in the report's ``sparsity``, not here.
    """

    metric: Literal["pattern"] = "pattern"
    sparsity: float = Field(gt=0, lt=1)
    tolerance: float = Field(default=0.01, gt=0, le=0.1, description="Share of the weights that may be zero beyond it.")

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the sparsity of the blocks."""
        return self.sparsity


class BytesTarget(Frozen):
    """Store at most so many bytes: chooses widths, and the storage type of each matrix, embeddings included.

    The weight files of the bundle hold no more. Its loader turns integers into ordinary weights, so that a model in memory has
    the size of its widths alone.
    """

    metric: Literal["bytes"]
    at_most: Bytes = Field(description='Bytes of the weight files: a number, or a size such as "100MB", "0.5GB" or "512MiB".')
    types: tuple[StorageName, ...] = Field(
        default=("float", "int8", "int4"),
        min_length=1,
        max_length=3,
        description="The types that a matrix may be stored in. float: floating-point numbers, of two bytes unless "
        "artifacts.dtype says otherwise. int8: integers of 8 bits, one scale for each row. int4: of 4 bits, one scale for 32 "
        "weights. With float alone, nothing but widths changes.",
    )
    widths: Literal["choose", "keep"] = Field(
        default="choose", description="choose: heads and neurons may go. keep: all stay, and types alone are chosen."
    )

    @model_validator(mode="after")
    def _types_differ(self) -> BytesTarget:
        if len(set(self.types)) < len(self.types):
            raise ValueError("types must differ from each other")
        return self

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: bytes."""
        return float(self.at_most)

    @property
    def tolerance(self) -> float:
        """How far the files may lie above the target: not at all. Below it they may lie as far as they do."""
        return 0.0


Target = Annotated[SparsityTarget | KeepTarget | LatencyTarget | PatternTarget | BytesTarget, Field(discriminator="metric")]


def target_name(target: Target) -> str:
    """Return the name of a target and of its sub-folder: ``macs-0.3``, ``latency-vllm-decode-0.7``."""
    place = [target.engine, target.phase] if isinstance(target, LatencyTarget) else []
    if isinstance(target, BytesTarget):
        chosen = [] if target.types == BytesTarget.model_fields["types"].default else list(target.types)
        kept = [] if target.widths == "choose" else ["whole"]
        return "-".join([target.metric, str(target.at_most), *chosen, *kept])
    return "-".join([target.metric, *filter(None, place), f"{target.requested:g}"])


def sparsities_of(targets: Sequence[Target]) -> list[float]:
    """Return the sparsities of the targets that count all prunable weights."""
    return [target.sparsity for target in targets if isinstance(target, SparsityTarget)]


def is_measured_here(target: Target) -> bool:
    """Return whether a target is measured by the clock of the job's own device."""
    return TARGET_METRICS[target.metric].measured and not (isinstance(target, LatencyTarget) and target.engine is not None)


def any_measured(targets: Sequence[Target]) -> bool:
    """Return whether one of the targets is measured by a clock."""
    return any(TARGET_METRICS[target.metric].measured for target in targets)


def any_rounds(targets: Sequence[Target]) -> bool:
    """Return whether one of the targets may round weights to integers."""
    return any(isinstance(target, BytesTarget) for target in targets)
