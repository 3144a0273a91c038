"""The verdict on a bundle: the gravest promise that it does not hold."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from pruning_core.artifacts.acceptance import Proof
from pruning_core.artifacts.compressed import COMPRESSED_PATH
from pruning_core.artifacts.onnx import ONNX_PATH
from pruning_core.errors import Diverged, QualityFloorMissed, Rejected, TargetMissed, Unloadable
from pruning_core.measure.outcome import target_missed
from pruning_core.report.engines import ExportReport
from pruning_core.report.report import CompressedReport, OnnxReport, Outcome
from pruning_core.run.candidate import Candidate
from pruning_core.spec.engines import ENGINE_TITLES
from pruning_core.spec.prune import PruneSpec


def accepted(candidate: Candidate, proof: Proof) -> Outcome:
    """Make the outcome of a checkpoint with its proof, and delete an ONNX graph or a compressed form without proof."""
    onnx = proof.onnx
    if candidate.export_problem is not None:
        onnx = OnnxReport(status="failed", reason=f"the exporter cannot express the model ({candidate.export_problem})")
    elif candidate.expected.onnx and onnx is None:
        onnx = OnnxReport(status="failed", reason=proof.problem or "it was not checked")
    if onnx is not None and onnx.status == "failed":
        shutil.rmtree((candidate.expected.folder / ONNX_PATH).parent, ignore_errors=True)
    exports = candidate.exports
    if onnx is not None and onnx.status == "failed":
        exports = tuple(_without_its_graph(row) if row.format == "onnx" else row for row in exports)
    compressed = proof.compressed
    if candidate.compress_problem is not None:
        compressed = CompressedReport(status="failed", reason=candidate.compress_problem)
    elif candidate.expected.compressed is not None and compressed is None:
        compressed = CompressedReport(status="failed", reason=proof.problem or "it was not checked")
    if compressed is not None and compressed.status == "failed":
        shutil.rmtree(candidate.expected.folder / COMPRESSED_PATH, ignore_errors=True)
    return candidate.measured.outcome(acceptance=proof.acceptance, onnx=onnx, compressed=compressed, exports=exports)


def _without_its_graph(row: ExportReport) -> ExportReport:
    """Fail a kind of a graph that was deleted because it does not prove itself."""
    reason = row.reason or "the graph that it is made of cannot be delivered"
    return ExportReport(format=row.format, kind=row.kind, status="failed", reason=reason)


def rejection(spec: PruneSpec, outcomes: Sequence[Outcome], proofs: Sequence[Proof]) -> Rejected | None:
    """Return the error for the first promise that is not held; None if all are."""
    for proof in proofs:
        if proof.problem is not None:
            return Unloadable(f"the bundle does not prove itself: {proof.problem}")
    for outcome in outcomes:
        missed = _training(outcome) or _target(outcome) or _floor(outcome)
        if missed is None and spec.artifacts.strict:
            missed = _undelivered(outcome)
        if missed is not None:
            return missed
    return None


def _undelivered(outcome: Outcome) -> Rejected | None:
    """Return the error for the first format that is not there, or the first engine that the bundle does not run in."""
    if outcome.onnx is not None and outcome.onnx.status == "failed":
        return Unloadable(f"onnx cannot be delivered: {outcome.onnx.reason}", param="artifacts.formats")
    if outcome.compressed is not None and outcome.compressed.status == "failed":
        return Unloadable(f"the compressed form cannot be delivered: {outcome.compressed.reason}", param="artifacts.formats")
    lacking = next((own for own in outcome.exports if own.status == "failed"), None)
    if lacking is not None:
        what = f"{lacking.format} {lacking.kind}".strip()
        return Unloadable(f"{what} cannot be delivered: {lacking.reason}", param="artifacts.formats")
    idle = next((own for own in outcome.engines if not own.works), None)
    if idle is None:
        return None
    return Unloadable(f"the bundle does not run in {ENGINE_TITLES[idle.engine]}: {idle.reason}", param="artifacts.engines")


def _training(outcome: Outcome) -> Rejected | None:
    training = outcome.training
    if training is None or training.ending != "diverged":
        return None
    return Diverged(
        f"training diverged ({training.reason}); the best weights before, those of step {training.best_step} of "
        f"{training.planned_steps}, are kept. Lower "
        "method.training.learning_rate, or raise method.training.batch_size or warmup",
        param="method.training.learning_rate",
    )


def _target(outcome: Outcome) -> Rejected | None:
    target, pattern = outcome.target, outcome.pattern
    if pattern is not None and pattern.violations:
        return TargetMissed(
            f"{pattern.violations} of {pattern.blocks} blocks of the written weights do not satisfy {pattern.pattern}",
            param="method",
        )
    if target.engine is not None and (unmeasured := _unmeasured(outcome)) is not None:
        return unmeasured
    if not target.met:
        return target_missed(target)
    again = None if outcome.acceptance is None else outcome.acceptance.latency_ms
    # Only a slower second measurement is a miss; the tolerance allows for the clock's noise.
    if again is not None and not again.pruned / again.dense <= target.requested + target.tolerance:
        return TargetMissed(
            f"asked for latency {target.requested:g} within {target.tolerance:g}, and measured {target.achieved:.4f} at first "
            f"but {again.pruned / again.dense:.4f} in a fresh process; allow a larger target.tolerance or more latency.repeats",
            param="target",
        )
    return None


def _unmeasured(outcome: Outcome) -> Rejected | None:
    """Return the error for a latency in an engine that the bundle does not run in, or was not timed in."""
    target = outcome.target
    row = next((own for own in outcome.engines if own.engine == target.engine), None)
    if row is not None and row.works and row.latency_share(target.phase) is not None:
        return None
    why = "it was not run there" if row is None else row.reason or "; ".join(row.notes) or "it was not timed there"
    return Unloadable(
        f"a latency {target.where} was asked for, and could not be measured in the bundle: {why}", param="target.engine"
    )


def _floor(outcome: Outcome) -> Rejected | None:
    floor, quality = outcome.quality_floor, outcome.quality
    if floor is None or floor.held:
        return None
    bound, share = "at most " if floor.lower_is_better else "", ""
    if floor.kind == "relative" and floor.lower_is_better:
        share = f" (the dense model's {quality.dense:.4f} divided by {floor.requested:g})"
    elif floor.kind == "relative":
        share = f" ({floor.requested:g} of the dense model's {quality.dense:.4f})"
    return QualityFloorMissed(
        f"the floor is {quality.metric} {bound}{floor.required:.4f}{share}, achieved {floor.achieved:.4f}{_by_bound(outcome)}; "
        f"keep more of the model, {'give more validation rows, ' if floor.confidence is not None else ''}or lower the floor",
        param="quality_floor",
    )


def _by_bound(outcome: Outcome) -> str:
    """Say by what a floor with a confidence was judged; empty for other floors."""
    floor = outcome.quality_floor
    if floor is None or floor.confidence is None:
        return ""
    end = "upper" if floor.lower_is_better else "lower"
    if floor.bound is None:
        return f", without an interval to judge by ({outcome.quality.no_interval})"
    return f", and the {end} end of its {100 * floor.confidence:g} % interval is {floor.bound:.4f}"
