"""The pipeline: a spec in, a bundle and its report out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from pruning_core.arch.encoder import adapt, clone, verify
from pruning_core.artifacts.bundle import write_checkpoint, write_manifest, write_reports
from pruning_core.calibration import batch_tokens_for, draw, tokenise
from pruning_core.data import Rows, check_labels, read_rows
from pruning_core.environment import choose_device, peak_memory, versions
from pruning_core.errors import OutOfMemory, PruningError
from pruning_core.evaluate import Judge
from pruning_core.evidence import Evidence
from pruning_core.inputs import check_local_inputs
from pruning_core.latency import measure_latency
from pruning_core.masks import Mask
from pruning_core.methods.base import Context, generator
from pruning_core.methods.registry import method_for
from pruning_core.models import TaskModel, load_task_model, resolve_checkpoint
from pruning_core.outcome import measure_outcome, meets, require_target
from pruning_core.precision import matmul_dtype
from pruning_core.progress import StageClock
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.report import DataReport, FrontierPoint, Outcome, Progress, Report
from pruning_core.spec import KeepTarget, PruneSpec, Target, target_name
from pruning_core.states import DenseStates
from pruning_core.targets import Planner


def run(
    spec: PruneSpec,
    out: Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    cache: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Report:
    """Prune a model as a spec says and write the bundle.

    Args:
        spec: What to do.
        out: Folder of the bundle: must not exist, or be empty. It appears whole, or not at all.
        device: A torch device; a GPU where there is one, else the CPU, when None.
        threads: CPU threads of the run; torch's own default when None. Latency has its own setting in the spec.
        cache: Folder for measurements that later runs can use again (latency tables); nothing is kept when None.
        on_progress: Told of every step.

    Returns:
        The report, which is also in the bundle.

    Raises:
        PruningError: One of its subclasses, for everything that a user can act on.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PruningError("the output folder must not exist, or be empty", param="out")
    if threads is not None:
        torch.set_num_threads(threads)
    check_local_inputs(spec)
    target_device = choose_device(device)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        report = _run(spec, partial, target_device, cache, StageClock(on_progress))
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(out)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"out of memory on {target_device}; lower calibration.memory_mb, samples or batch_tokens") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _run(spec: PruneSpec, folder: Path, device: torch.device, cache: Path | None, clock: StageClock) -> Report:
    with clock.stage("load"):
        dense = load_task_model(resolve_checkpoint(spec.model, spec.revision), spec.task.type, device)
        train, validation = (
            read_rows(spec.task, spec.task.train_split),
            read_rows(spec.task, spec.task.validation_split),
        )
    for rows in (train, validation):
        check_labels(spec.task, rows, classes=dense.model.config.num_labels or 0)
    with clock.stage("calibrate"):
        ctx = Context(dense, _gather_evidence(spec, dense, train, folder), clock, spec.seed)
    method = method_for(spec.method)
    planner = Planner(spec, ctx, method, method.prepare(ctx), cache)
    judge = Judge(spec, dense, validation)
    outcomes: list[Outcome] = []
    for part, target in enumerate(spec.all_targets):
        clock.begin_part(part, len(spec.all_targets))
        outcomes.append(_reach(spec, ctx, judge, target, planner=planner, folder=_place(folder, part, target)))
    with clock.stage("bundle"):
        report = _report(spec, ctx, outcomes, rows=len(train))
        for part, (target, outcome) in enumerate(zip(spec.all_targets, outcomes, strict=True)):
            if part:
                write_reports(_place(folder, part, target), spec, report.narrowed_to(outcome))
        write_reports(folder, spec, report)
        write_manifest(folder)
    return report


def _reach(spec: PruneSpec, ctx: Context, judge: Judge, target: Target, *, planner: Planner, folder: Path) -> Outcome:
    """Make the checkpoint of a target; a latency that the finished checkpoint misses is planned anew a few times.

    Raises:
        TargetMissed: The last one misses it too.
    """
    outcome: Outcome | None = None
    for mask in planner.plans(target):
        outcome = _checkpoint(spec, ctx, judge, target, mask=mask, folder=folder)
        if meets(outcome.target):
            break
    assert outcome is not None, "a planner gives at least one mask"
    require_target(outcome.target)
    return outcome


def _place(folder: Path, part: int, target: Target) -> Path:
    """Give the folder of a checkpoint: the first target's is the bundle itself."""
    return folder / target_name(target) if part else folder


def _gather_evidence(spec: PruneSpec, dense: TaskModel, train: Rows, scratch: Path) -> Evidence:
    options = spec.calibration
    adapter = adapt(dense.model)
    batch_tokens = options.batch_tokens or batch_tokens_for(adapter.groups, dense.device, options)
    drawn = 2 * options.samples if options.sampling == "longer" else options.samples
    calibration = tokenise(
        dense.tokenizer,
        draw(train, drawn, generator(spec.seed, "calibration")),
        spec.task.type,
        max_length=options.max_length,
        batch_tokens=batch_tokens,
        longest=options.samples,
    )
    verify(adapter, calibration.batches[-1].to(dense.device).inputs)  # the longest: padding and far positions show most
    states = DenseStates(adapter, calibration.batches, options.memory_mb * 2**20, scratch)
    return Evidence(adapter, calibration, states, matmul_dtype(options.precision, dense.device))


def _checkpoint(spec: PruneSpec, ctx: Context, judge: Judge, target: Target, *, mask: Mask, folder: Path) -> Outcome:
    """Slice, repair, write, and measure what was written."""
    clock, dense, evidence = ctx.clock, ctx.task_model, ctx.evidence
    student = clone(dense.model)
    with clock.stage("recover", len(mask.kept)) as step:
        sublayers = prune_and_recover_(adapt(student), mask, evidence, spec.recovery, on_sublayer=step)
    if not _needs_more(spec):
        evidence.states.release()
    with clock.stage("materialise"):
        folder.mkdir(exist_ok=True)
        write_checkpoint(folder, dense, evidence.dense, student, spec.artifacts)
        del student
        pruned = load_task_model(folder, spec.task.type, dense.device)
    with clock.stage("evaluate", judge.steps) as step:
        quality = judge.compare(pruned, step)
    timing = spec.latency if len(spec.all_targets) == 1 else spec.latency.for_frontier()
    with clock.stage("latency", timing.repeats) as step:
        latency = measure_latency(dense, pruned, timing, generator(spec.seed, "latency"), step)
    return measure_outcome(
        target,
        folder,
        source=dense,
        dense=evidence.dense,
        length=evidence.calibration.mean_length,
        mask=mask,
        sublayers=sublayers,
        quality=quality,
        latency=latency,
    )


def _needs_more(spec: PruneSpec) -> bool:
    """Whether another checkpoint may follow: of another budget, or of a latency that is planned anew."""
    return len(spec.all_targets) > 1 or not all(isinstance(target, KeepTarget) for target in spec.all_targets)


def _report(spec: PruneSpec, ctx: Context, outcomes: list[Outcome], *, rows: int) -> Report:
    calibration = ctx.evidence.calibration
    points = [
        FrontierPoint(path=target_name(target) if part else ".", **dict(outcome))
        for part, (target, outcome) in enumerate(zip(spec.all_targets, outcomes, strict=True))
    ]
    return Report(
        **dict(outcomes[0]),
        model=spec.model,
        task=spec.task.name or spec.task.type,
        method=spec.method.name,
        recovery=spec.recovery.kind,
        seconds=ctx.clock.report(),
        data=DataReport(
            fingerprint=calibration.fingerprint,
            samples=calibration.samples,
            tokens=calibration.tokens,
            mean_length=calibration.mean_length,
        ),
        peak_memory_bytes=peak_memory(ctx.task_model.device),
        seed=spec.seed,
        device=str(ctx.task_model.device),
        versions=versions(),
        frontier=tuple(points) if len(points) > 1 else (),
        warnings=_warnings(spec, outcomes, rows),
    )


def _warnings(spec: PruneSpec, outcomes: list[Outcome], rows: int) -> tuple[str, ...]:
    found: list[str] = []
    if rows < spec.calibration.samples:
        found.append(f"only {rows} training rows for {spec.calibration.samples} calibration samples; all were used")
    for target, outcome in zip(spec.all_targets, outcomes, strict=True):
        where = f"{target_name(target)}, " if len(outcomes) > 1 else ""
        for layer in outcome.layers:
            for half, sublayer in (("attention", layer.attention), ("ffn", layer.ffn)):
                if sublayer.status in ("breakdown", "rejected"):
                    found.append(f"{where}layer {layer.layer} {half}: recovery {sublayer.status}, weights left unrepaired")
    return tuple(found)
