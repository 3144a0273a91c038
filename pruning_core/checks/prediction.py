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
from pruning_core.checks.seconds import MEAN_SHARE, Model, seconds_of, step_of_healing_s
from pruning_core.engines.limits import refusals_of_files
from pruning_core.engines.refusing import notes_on_engines
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.gguf import gguf_in
from pruning_core.files.paths import is_local
from pruning_core.files.snapshots import resolve_snapshot
from pruning_core.report.report import IntPair
from pruning_core.spec.engine_targets import in_engines
from pruning_core.spec.engines import ENGINE_TITLES
from pruning_core.spec.prune import Frozen, PruneSpec
from pruning_core.spec.targets import TARGET_METRICS, Target

# What an idle process with torch takes.
_RUNTIME_BYTES = 800 * 2**20

_TYPICAL_BATCH_TOKENS = 4096
_BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2}
# Residual streams kept for each token of a repair: the dense one and the pruned one.
_STREAMS = 2
# Gradients, two moments, and the best weights so far.
_COPIES_TO_HEAL = 4
# Fewer steps than this within a budget are hardly worth their judging.
_FEW_STEPS = 20


class Prediction(Frozen):
    """Estimates of the result and of the work. With several targets, the sizes are those of the first target."""

    parameters: IntPair | None = Field(
        description="Null where only a quality floor is given, or a latency in an engine: what is measured finds the size."
    )
    bytes: IntPair | None = Field(description="As `parameters`.")
    memory_bytes: int = Field(description="Peak of the job's process on a CPU, roughly.")
    seconds: float = Field(
        description="Whole job on an ordinary CPU host, roughly, with its ledger, further sets, formats and engines, as if "
        "they were installed where it runs; a GPU is faster."
    )
    warnings: tuple[str, ...] = Field(
        default=(), description="What of the model's files will be left out, or was not looked at."
    )


def predict(spec: PruneSpec) -> Prediction | None:
    """Predict a job whose model is a local checkpoint; None for Hub ids, and for files that are converted first.

    Raises:
        PruningError: One of the errors that `check_local_inputs` raises for such a model.
    """
    if not is_local(spec.model):
        return None
    folder = Path(spec.model).expanduser()
    if spec.adapter is not None or gguf_in(resolve_snapshot(folder)) is not None:
        return None
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
        seconds=seconds_of(spec, groups, facts).total,
        warnings=(
            *notes_on_place(spec.model, spec.revision),
            *notes_on_model(folder, spec.task),
            *refusals_of_files(spec.artifacts, facts.config),
            *_notes_on_healing(spec, Model.of(spec, groups, facts)),
            *notes_on_engines(spec, facts.config),
            *(
                f"what a latency of {own.keep:g} in {ENGINE_TITLES[name]} takes is known once the job has measured a table "
                "there: no size is predicted"
                for own, name in timed
            ),
        ),
    )


def _notes_on_healing(spec: PruneSpec, model: Model) -> tuple[str, ...]:
    """Say where a budget has room for few steps of healing."""
    heal = spec.recovery.heal
    if not heal.heals or heal.steps is not None:
        return ()
    step_s = step_of_healing_s(spec, model)
    if 60 * heal.minutes >= _FEW_STEPS * step_s:
        return ()
    said = (
        f"a step of healing may take {step_s:.0f} s on an ordinary CPU host, so that {heal.minutes:g} minutes have room for "
        "few of them, if any: raise recovery.heal.minutes, lower recovery.heal.batch_size, or use a GPU"
    )
    return (said,)


def _prunable(groups: tuple[UnitGroup, ...]) -> int:
    return sum(group.params_per_unit * group.size for group in groups)


def _removed_share(target: Target, groups: tuple[UnitGroup, ...], dense: int) -> float:
    """Estimate the share of the prunable parameters that will be removed, assuming that heads and neurons shrink alike."""
    if TARGET_METRICS[target.metric].absolute:
        return 0.0  # rounding alone may do
    removed = target.requested if TARGET_METRICS[target.metric].removed else 1 - target.requested
    return min(1.0, removed * dense / _prunable(groups)) if RULES[target.metric].whole_model else removed


def _memory(spec: PruneSpec, groups: tuple[UnitGroup, ...], dense: int) -> int:
    tokens = spec.calibration.samples * spec.calibration.max_length * MEAN_SHARE
    hidden = groups[0].hidden
    widest = max(group.size * group.unit_width for group in groups)
    here = dense
    if spec.memory.weights == "paged":  # the weights of only one block are in memory
        here -= _prunable(groups) - max(group.params_per_unit * group.size for group in groups)
    weights = 3 * 4 * here  # the dense model, the pruned one, and the file that is being written
    streams = _STREAMS * 4 * tokens * hidden
    batch = 40 * 4 * (spec.calibration.batch_tokens or _TYPICAL_BATCH_TOKENS) * (hidden + widest)  # kept for one backward
    gram = 3 * 8 * max(group.size * group.unit_width for group in groups if group.repairable) ** 2
    healing = _healing(spec, dense, hidden, widest) if spec.recovery.heal.heals else 0
    return int(_RUNTIME_BYTES + weights + max(streams + batch + gram, streams + healing))


def _healing(spec: PruneSpec, dense: int, hidden: int, widest: int) -> int:
    """Estimate what healing takes beside the two models: gradients, AdamW's moments, the best weights, and one batch."""
    tokens = spec.calibration.batch_tokens or _TYPICAL_BATCH_TOKENS
    return _COPIES_TO_HEAL * 4 * dense + 40 * 4 * tokens * (hidden + widest)
