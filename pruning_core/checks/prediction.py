"""Predictions: estimates of a job's result, memory and time, made from files alone before any work. Torch-free.

Sizes follow from the target and are accurate to a few per cent. Memory and time follow from counts of operations. They serve
to choose a machine and a time-out, not for billing.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from pruning_core.arch.structure import groups_of
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import RULES
from pruning_core.checks.notes import notes_on_model, notes_on_place
from pruning_core.engines.limits import refusals_of_files
from pruning_core.engines.refusing import notes_on_engines
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.paths import is_local
from pruning_core.files.snapshots import resolve_snapshot
from pruning_core.report.report import IntPair
from pruning_core.spec.artifacts import FLOOR_TRIALS
from pruning_core.spec.engine_targets import in_engines
from pruning_core.spec.engines import ENGINE_TITLES
from pruning_core.spec.options import ZeroingOptions
from pruning_core.spec.prune import Frozen, PruneSpec
from pruning_core.spec.targets import TARGET_METRICS, Target

# An ordinary host: operations a second with all cores and with one, and what an idle process with torch takes.
_FLOPS = 2e11
_FLOPS_OF_ONE_THREAD = 4e10
_STARTUP_S = 12
_RUNTIME_BYTES = 800 * 2**20

_MEAN_SHARE = 0.25  # length of a typical sample as a share of the longest allowed
_TYPICAL_EVALUATION = 1000
_TYPICAL_BATCH_TOKENS = 4096
_BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2}
# Passes over the calibration samples, counted in forward passes: scores with a backward (3), the dense stream (1), repair (2).
_PASSES = 6
_PASSES_OF_A_REPAIR = 2
# Passes of a training row: the forward of the dense model, that of the student, and its backward (as long as two forwards).
_PASSES_OF_A_STEP = 4
_TYPICAL_TRAINING = 10_000  # rows of a training split of unknown size
_STEPS_OF_A_RHO = 4
# Residual streams kept for each token of a repair: the dense one and the pruned one.
_STREAMS = 2


class Prediction(Frozen):
    """Estimates of the result and of the work. With several targets, the sizes are those of the first target."""

    parameters: IntPair | None = Field(
        description="Null where only a quality floor is given, or a latency in an engine: what is measured finds the size."
    )
    bytes: IntPair | None = Field(description="As `parameters`.")
    memory_bytes: int = Field(description="Peak of the job's process on a CPU, roughly.")
    seconds: float = Field(description="Whole job on an ordinary CPU host, roughly; a GPU is faster.")
    warnings: tuple[str, ...] = Field(
        default=(), description="What of the model's files will be left out, or was not looked at."
    )


def predict(spec: PruneSpec) -> Prediction | None:
    """Predict a job whose model is a local folder; None for Hub ids.

    Raises:
        PruningError: One of the errors that `check_local_inputs` raises for such a model.
    """
    if not is_local(spec.model):
        return None
    folder = Path(spec.model).expanduser()
    facts = read_checkpoint(resolve_snapshot(folder))
    groups = groups_of(facts)
    dense, parameters, size = facts.parameters, None, None
    timed = in_engines(spec.all_targets[:1])
    if spec.all_targets and not timed:
        share = _removed_share(spec.all_targets[0], groups, dense) if spec.method.removes_units else 0.0
        pruned = dense - round(share * _prunable(groups))
        width = _BYTES_OF.get(spec.artifacts.dtype, facts.weight_bytes / max(1, dense))
        parameters = IntPair(dense=dense, pruned=pruned)
        size = IntPair(dense=facts.weight_bytes, pruned=round(pruned * width))
    return Prediction(
        parameters=parameters,
        bytes=size,
        memory_bytes=_memory(spec, groups, dense),
        seconds=_seconds(spec, groups),
        warnings=(
            *notes_on_place(spec.model, spec.revision),
            *notes_on_model(folder, spec.task),
            *refusals_of_files(spec.artifacts, facts.config),
            *notes_on_engines(spec, facts.config),
            *(
                f"what a latency of {own.keep:g} in {ENGINE_TITLES[name]} takes is known once the job has measured a table "
                "there: no size is predicted"
                for own, name in timed
            ),
        ),
    )


def _prunable(groups: tuple[UnitGroup, ...]) -> int:
    return sum(group.params_per_unit * group.size for group in groups)


def _removed_share(target: Target, groups: tuple[UnitGroup, ...], dense: int) -> float:
    """Estimate the share of the prunable parameters that will be removed, assuming that heads and neurons shrink alike."""
    removed = target.requested if TARGET_METRICS[target.metric].removed else 1 - target.requested
    return min(1.0, removed * dense / _prunable(groups)) if RULES[target.metric].whole_model else removed


def _memory(spec: PruneSpec, groups: tuple[UnitGroup, ...], dense: int) -> int:
    tokens = spec.calibration.samples * spec.calibration.max_length * _MEAN_SHARE
    hidden = groups[0].hidden
    widest = max(group.size * group.unit_width for group in groups)
    here = dense
    if spec.memory.weights == "paged":  # the weights of only one block are in memory
        here -= _prunable(groups) - max(group.params_per_unit * group.size for group in groups)
    weights = 3 * 4 * here  # the dense model, the pruned one, and the file that is being written
    streams = _STREAMS * 4 * tokens * hidden
    batch = 40 * 4 * (spec.calibration.batch_tokens or _TYPICAL_BATCH_TOKENS) * (hidden + widest)  # kept for one backward
    gram = 3 * 8 * widest**2
    return int(_RUNTIME_BYTES + weights + streams + batch + gram)


def _seconds(spec: PruneSpec, groups: tuple[UnitGroup, ...]) -> float:
    calibration = spec.calibration.samples * _forward_flops(groups, _MEAN_SHARE * spec.calibration.max_length)
    rows = spec.evaluation.max_samples or _TYPICAL_EVALUATION
    evaluation = 2 * rows * _forward_flops(groups, _MEAN_SHARE * spec.evaluation.max_length)
    solves = sum((group.size * group.unit_width) ** 3 for group in groups)
    timed = 2 * spec.latency.usual_repeats * spec.latency.batch * _forward_flops(groups, spec.latency.length)
    threads = min(_FLOPS, _FLOPS_OF_ONE_THREAD * spec.latency.threads)
    scored = (_PASSES - _PASSES_OF_A_REPAIR) * calibration
    repaired = len(spec.all_targets) or FLOOR_TRIALS  # number of checkpoints that are made and evaluated
    work = scored + repaired * (_PASSES_OF_A_REPAIR * calibration + evaluation + solves)
    if spec.method.zeroing is not None:
        work += repaired * _zeroing_work(spec, spec.method.zeroing, groups)
    return round(_STARTUP_S + work / _FLOPS + max(1, len(spec.all_targets)) * timed / threads, 1)


def _zeroing_work(spec: PruneSpec, method: ZeroingOptions, groups: tuple[UnitGroup, ...]) -> float:
    """Estimate the operations of zeroing: products of ADMM and of the refits, factors where rho changes, and the training."""
    steps = 2 * method.steps + (method.iterations if method.selection == "admm" else 0)
    factors = 1 + (method.iterations / _STEPS_OF_A_RHO if method.selection == "admm" else 0)
    found = 0.0
    for group in groups:
        width, hidden = group.size * group.unit_width, group.hidden
        readers = 3 if group.unit_width > 1 else 1
        found += readers * (2 * steps * hidden**2 * width + factors * hidden**3)
        found += 2 * steps * width**2 * hidden + factors * width**3
    if method.tier == "trained":
        rows = method.training.epochs * (method.training.max_train_rows or _TYPICAL_TRAINING)
        found += rows * _PASSES_OF_A_STEP * _forward_flops(groups, _MEAN_SHARE * spec.calibration.max_length)
    return found


def _forward_flops(groups: tuple[UnitGroup, ...], length: float) -> float:
    return 2 * sum(group.macs_per_unit(length) * group.size for group in groups)
