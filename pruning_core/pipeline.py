"""The pipeline: a spec in, a bundle and its report out."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from pruning_core.arch.encoder import EncoderAdapter, adapt, clone, verify
from pruning_core.artifacts.bundle import write_checkpoint, write_reports
from pruning_core.calibration import TokenSet, draw, tokenise
from pruning_core.cost import Budget, UnitGroup, budget_for, kept_macs, kept_weights
from pruning_core.data import Rows, check_labels, read_rows
from pruning_core.errors import OutOfMemory, PruningError, TargetMissed
from pruning_core.evaluate import collect_labels, collect_outputs, compare
from pruning_core.inputs import check_local_inputs, groups_of, read_checkpoint
from pruning_core.latency import measure_latency
from pruning_core.masks import Mask
from pruning_core.methods.base import Context, generator
from pruning_core.methods.registry import method_for
from pruning_core.models import TaskModel, load_task_model, resolve_checkpoint
from pruning_core.progress import StageClock
from pruning_core.recovery import prune_and_recover_
from pruning_core.report import (
    DataReport,
    IntPair,
    LatencyReport,
    LayerReport,
    Progress,
    QualityReport,
    Report,
    SparsityReport,
    SublayerReport,
    TargetReport,
)
from pruning_core.spec import PruneSpec

# What sums of prices may lose or gain in float64.
_ROUNDING = 1e-9


def run(
    spec: PruneSpec,
    out: Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Report:
    """Prune a model as a spec says and write the bundle.

    Args:
        spec: What to do.
        out: Folder of the bundle: must not exist, or be empty. It appears whole, or not at all.
        device: A torch device; a GPU where there is one, else the CPU, when None.
        threads: CPU threads of the run; torch's own default when None. Latency has its own setting in the spec.
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
    target_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        report = _run(spec, partial, target_device, StageClock(on_progress))
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(out)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"out of memory on {target_device}; lower calibration.samples or calibration.batch_tokens") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _run(spec: PruneSpec, folder: Path, device: torch.device, clock: StageClock) -> Report:
    with clock.stage("load"):
        dense = load_task_model(resolve_checkpoint(spec.model, spec.revision), spec.task.type, device)
        adapter = adapt(dense.model)
        train, validation = (
            read_rows(spec.task, spec.task.train_split),
            read_rows(spec.task, spec.task.validation_split),
        )
    for rows in (train, validation):
        check_labels(spec.task, rows, classes=dense.model.config.num_labels or 0)
    with clock.stage("calibrate"):
        calibration = _calibration_set(spec, dense, train)
        verify(adapter, calibration.batches[-1].to(device).inputs)  # the longest: padding and far positions show most
    ctx = Context(dense, adapter, calibration, clock, spec.seed)
    budget = budget_for(spec.target, adapter.groups, total_params=dense.parameter_count(), length=calibration.mean_length)
    mask = _plan(spec, ctx, budget)
    student = clone(dense.model)
    with clock.stage("recover", len(mask.kept)) as step:
        sublayers = prune_and_recover_(
            adapter,
            adapt(student),
            mask,
            calibration.batches,
            spec.recovery,
            samples=calibration.samples,
            on_sublayer=step,
        )
    with clock.stage("materialise"):
        write_checkpoint(folder, dense, adapter, student, spec.artifacts)
        del student
        pruned = load_task_model(folder, spec.task.type, device)
    quality = _evaluate(spec, dense, pruned, validation, clock)
    with clock.stage("latency", spec.latency.repeats) as step:
        latency = measure_latency(dense, pruned, spec.latency, generator(spec.seed, "latency"), step)
    with clock.stage("bundle"):
        report = _report(spec, ctx, folder, mask=mask, sublayers=sublayers, quality=quality, latency=latency, rows=len(train))
        _require_target(report)
        write_reports(folder, spec, report)
    return report


def _calibration_set(spec: PruneSpec, dense: TaskModel, train: Rows) -> TokenSet:
    return tokenise(
        dense.tokenizer,
        draw(train, spec.calibration.samples, generator(spec.seed, "calibration")),
        spec.task.type,
        max_length=spec.calibration.max_length,
        batch_tokens=spec.calibration.batch_tokens,
    )


def _plan(spec: PruneSpec, ctx: Context, budget: Budget) -> Mask:
    method = method_for(spec.method)
    return method.plan(method.prepare(ctx), budget, ctx)


def _evaluate(spec: PruneSpec, dense: TaskModel, pruned: TaskModel, validation: Rows, clock: StageClock) -> QualityReport:
    """Judge the model as loaded back from the written files."""
    limit = spec.evaluation.max_samples
    rows = Rows(validation.texts[:limit], None if validation.labels is None else validation.labels[:limit])
    tokens = tokenise(
        dense.tokenizer,
        rows,
        spec.task.type,
        max_length=spec.evaluation.max_length,
        batch_tokens=spec.calibration.batch_tokens,
    )
    count = len(tokens.batches)
    with clock.stage("evaluate", 2 * count) as step:
        dense_outputs = collect_outputs(dense, tokens.batches, tokens.samples, step)
        pruned_outputs = collect_outputs(pruned, tokens.batches, tokens.samples, lambda done: step(count + done))
        return compare(spec.task, dense_outputs, pruned_outputs, collect_labels(tokens.batches, tokens.samples))


def _report(
    spec: PruneSpec,
    ctx: Context,
    folder: Path,
    *,
    mask: Mask,
    sublayers: tuple[SublayerReport, ...],
    quality: QualityReport,
    latency: LatencyReport,
    rows: int,
) -> Report:
    """Recount everything that can be counted from the written files."""
    dense_groups, length = ctx.adapter.groups, ctx.calibration.mean_length
    dense_files, written = read_checkpoint(ctx.task_model.source), read_checkpoint(folder)
    written_groups = groups_of(written)
    before, after = [group.size for group in dense_groups], [group.size for group in written_groups]
    dense_macs, pruned_macs = kept_macs(dense_groups, before, length), kept_macs(dense_groups, after, length)
    parameters = IntPair(dense=ctx.task_model.parameter_count(), pruned=written.parameters)
    sparsity = 1 - kept_weights(dense_groups, after) / kept_weights(dense_groups, before)
    achieved = {"sparsity": sparsity, "macs": pruned_macs / dense_macs, "params": parameters.pruned / parameters.dense}
    target = spec.target
    return Report(
        model=spec.model,
        task=spec.task.name or spec.task.type,
        method=spec.method.name,
        recovery=spec.recovery.kind,
        target=TargetReport(
            metric=target.metric,
            requested=target.requested,
            achieved=achieved[target.metric],
            tolerance=target.tolerance,
        ),
        sparsity=SparsityReport(achieved=sparsity),
        macs=IntPair(dense=round(dense_macs), pruned=round(pruned_macs)),
        parameters=parameters,
        bytes=IntPair(dense=dense_files.weight_bytes, pruned=written.weight_bytes),
        quality=quality,
        latency_ms=latency,
        seconds=ctx.clock.report(),
        layers=_layer_reports(ctx.adapter, mask, written_groups, sublayers),
        data=DataReport(
            fingerprint=ctx.calibration.fingerprint,
            samples=ctx.calibration.samples,
            tokens=ctx.calibration.tokens,
            mean_length=length,
        ),
        peak_memory_bytes=_peak_memory(ctx.task_model.device),
        seed=spec.seed,
        device=str(ctx.task_model.device),
        versions=_versions(),
        warnings=_warnings(spec, ctx, sublayers, rows),
    )


def _layer_reports(
    adapter: EncoderAdapter, mask: Mask, written: tuple[UnitGroup, ...], sublayers: tuple[SublayerReport, ...]
) -> tuple[LayerReport, ...]:
    dense = adapter.groups
    return tuple(
        LayerReport(
            layer=dense[i].layer,
            dense_heads=dense[i].size,
            kept_heads=written[i].size,
            head_indices=tuple(mask.indices(i).tolist()),
            dense_neurons=dense[i + 1].size,
            kept_neurons=written[i + 1].size,
            attention=sublayers[i],
            ffn=sublayers[i + 1],
        )
        for i in range(0, len(dense), 2)
    )


def _require_target(report: Report) -> None:
    """Hold the written files to the target: never above the budget, and within the tolerance below it.

    Raises:
        TargetMissed: They are not.
    """
    target = report.target
    beyond = target.achieved - target.requested
    if target.metric == "sparsity":
        beyond = -beyond
    if not -target.tolerance <= beyond <= _ROUNDING:
        raise TargetMissed(
            f"asked for {target.metric} {target.requested:g} within {target.tolerance:g}, achieved {target.achieved:.4f}; "
            "units of this model may be too coarse, allow a larger target.tolerance",
            param="target",
        )


def _warnings(spec: PruneSpec, ctx: Context, sublayers: tuple[SublayerReport, ...], rows: int) -> tuple[str, ...]:
    found: list[str] = []
    if rows < spec.calibration.samples:
        found.append(f"only {rows} training rows for {spec.calibration.samples} calibration samples; all were used")
    for group, sublayer in zip(ctx.adapter.groups, sublayers, strict=True):
        if sublayer.status in ("breakdown", "rejected"):
            half = "attention" if group.kind == "head" else "ffn"
            found.append(f"layer {group.layer} {half}: recovery {sublayer.status}, weights left unrepaired")
    return tuple(found)


def _peak_memory(device: torch.device) -> int:
    """Peak bytes of this process: on the GPU by its allocator, on the CPU by the resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _versions() -> dict[str, str]:
    names = ("coppice", "torch", "transformers", "safetensors", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
