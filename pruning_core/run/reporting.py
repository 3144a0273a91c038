"""The report of a run: the outcomes of its checkpoints, and warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pruning_core.checks.model import mixture
from pruning_core.checks.notes import notes_on_model, notes_on_place
from pruning_core.data.rows import Rows
from pruning_core.evidence.context import Context
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.machine.environment import peak_memory, versions
from pruning_core.report.adapter import AdapterReport
from pruning_core.report.outlook import OutlookReport
from pruning_core.report.report import DataReport, FrontierPoint, MemoryReport, Outcome, QualityReport, Report
from pruning_core.report.reproduction import ReproductionReport
from pruning_core.report.sublayers import reported_sublayers
from pruning_core.report.vocabulary import VocabularyReport
from pruning_core.run.candidate import Candidate
from pruning_core.spec.engines import ENGINE_TITLES
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import target_name
from pruning_core.tasks.base import TaskModel
from pruning_core.training.runner import healing_warnings, training_warnings

_FEW_SUBLAYERS = 4  # named one by one


def summed_up(
    spec: PruneSpec,
    ctx: Context,
    candidates: Sequence[Candidate],
    outcomes: Sequence[Outcome],
    *,
    memory: MemoryReport,
    odd: Sequence[str],
    outlook: OutlookReport | None,
    model_name: str | None,
    again: ReproductionReport,
    vocabulary: VocabularyReport | None,
    adapter: AdapterReport | None,
) -> Report:
    """Make the report of a run.

    Args:
        spec: The request.
        ctx: Dense model, evidence and clock.
        candidates: The checkpoints, in the order of the targets.
        outcomes: The outcome of each checkpoint.
        memory: Where the weights were kept.
        odd: Warnings about the data.
        outlook: What other budgets would cost, where that is known.
        model_name: Name of the model in the report; None: as in the request.
        again: What it takes to make the bundle again.
        vocabulary: The vocabulary that was cut; None where it is whole.
        adapter: The adapter that was merged; None where there was none.
    """
    calibration = ctx.evidence.calibration
    points = [
        FrontierPoint(path=target_name(candidate.target) if part else ".", **dict(outcome))
        for part, (candidate, outcome) in enumerate(zip(candidates, outcomes, strict=True))
    ]
    return Report(
        **dict(outcomes[0]),
        model=spec.model if model_name is None else model_name,
        task=spec.task.name or spec.task.type,
        method=spec.method.name,
        recovery=spec.recovery.kind,
        seconds=ctx.clock.report(),
        data=DataReport(
            fingerprint=calibration.fingerprint,
            samples=calibration.samples,
            tokens=calibration.tokens,
            mean_length=calibration.mean_length,
            self_written=ctx.evidence.written,
        ),
        peak_memory_bytes=peak_memory(ctx.task_model.device),
        memory=memory,
        seed=spec.seed,
        device=str(ctx.task_model.device),
        versions=versions(),
        reproduction=again,
        statistics=ctx.statistics.report(),
        outlook=outlook,
        vocabulary=vocabulary,
        adapter=adapter,
        frontier=tuple(points) if len(points) > 1 else (),
        warnings=(
            *_of_model(spec, ctx),
            *_paged(memory),
            *odd,
            *_of_quality(outcomes[0].quality),
            *_warnings(candidates, outcomes),
        ),
    )


def _of_model(spec: PruneSpec, ctx: Context) -> list[str]:
    """Warn of what of the model's files was left out, and of weights that mix types."""
    source = ctx.task_model.source
    said = mixture(read_checkpoint(source).dtypes)
    notes = (*notes_on_place(spec.model, spec.revision), *notes_on_model(source, spec.task))
    return [*notes, *([said] if said is not None and spec.artifacts.dtype == "auto" else [])]


def _paged(memory: MemoryReport) -> list[str]:
    """Warn if weights were read one block at a time for want of memory, which takes longer."""
    if memory.weights == "resident" or memory.needed_bytes <= memory.free_bytes:
        return []
    needed, free = (f"{count / 2**30:.1f} GiB" for count in (memory.needed_bytes, memory.free_bytes))
    return [f"all weights would have needed {needed} of memory and {free} were free: one block at a time was read"]


def scarce(spec: PruneSpec, dense: TaskModel, train: Rows) -> list[str]:
    """Warn if there are fewer rows than requested samples; of rows that are joined to samples, their evidence tells."""
    if dense.family.joins_rows or len(train) >= spec.calibration.samples:
        return []
    return [f"only {len(train)} training rows for {spec.calibration.samples} calibration samples; all were used"]


def _of_quality(quality: QualityReport) -> list[str]:
    """Warn of a dense model that is worse than none, as one is whose classes are in another order than the data's."""
    if quality.constant is None or quality.dense >= quality.constant:
        return []
    said = (
        f"the dense model's {quality.metric} is {quality.dense:.4f}, worse than always giving the commonest answer "
        f"({quality.constant:.4f}): are the labels in the order of the model's classes, and was its head trained for them?"
    )
    return [said]


def _warnings(candidates: Sequence[Candidate], outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    found: list[str] = []
    for candidate, outcome in zip(candidates, outcomes, strict=True):
        where = f"{target_name(candidate.target)}, " if len(outcomes) > 1 else ""
        told_of = outcome.target
        if told_of.engine is not None and told_of.achieved < told_of.requested - told_of.tolerance:
            found.append(
                f"{where}the latency {told_of.where} came out at {told_of.achieved:.3f} where {told_of.requested:g} was asked "
                "for: more of the model could be kept"
            )
        precision = outcome.quality.precision
        if precision is not None and precision.disagrees:
            found.append(f"{where}quality was measured in {precision.dtype}: {precision.reason}")
        if outcome.quality.undefined:
            found.append(
                f"{where}{outcome.quality.metric} is undefined for the pruned model, whose scores are all alike, and counts as "
                f"{outcome.quality.pruned:g}"
            )
        if outcome.quality_floor is not None and (outcome.quality_floor.judged or 1) > 1:
            found.append(
                f"{where}{outcome.quality_floor.judged} checkpoints that held the floor when they were selected were judged, "
                "the smallest first: those before this one missed it"
            )
        if outcome.onnx is not None and outcome.onnx.status == "failed":
            found.append(f"{where}no ONNX graph: {outcome.onnx.reason}")
        if outcome.compressed is not None and outcome.compressed.status == "failed":
            found.append(f"{where}no compressed form: {outcome.compressed.reason}")
        lacking = [row for row in outcome.exports if row.status == "failed"]
        found.extend(f"{where}no {f'{row.format} {row.kind}'.strip()}: {row.reason}" for row in lacking)
        found.extend(
            f"{where}{'not run' if own.status == 'missing' else 'does not run'} in {ENGINE_TITLES[own.engine]}: {own.reason}"
            for own in outcome.engines
            if not own.works
        )
        if outcome.ledger is not None:
            found.extend(f"{where}{said}" for said in outcome.ledger.warnings)
        told = (*candidate.plan.hints(outcome), *training_warnings(outcome.training), *healing_warnings(outcome.healing))
        found.extend(f"{where}{said}" for said in told)
        found.extend(f"{where}{said}" for said in _unrepaired(outcome))
    return tuple(found)


def _unrepaired(outcome: Outcome) -> list[str]:
    """Say which sublayers were left unrepaired: each by name, or their number where they are many."""
    told = list(reported_sublayers(outcome.layers))
    failed = [own for own in told if own.failed]
    if len(failed) <= _FEW_SUBLAYERS:
        return [f"{own.name}: recovery {own.report.status}, weights left unrepaired" for own in failed]
    statuses = Counter(own.report.status for own in failed)
    kinds = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    where = f"{len(failed)} of {len(told)} sublayers unrepaired ({kinds}): layers has each"
    return [f"recovery left the weights of {where}; more calibration samples may help"]
