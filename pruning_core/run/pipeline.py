"""The pipeline: from a spec to a bundle and its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from pruning_core.arch.paging import give_back
from pruning_core.artifacts.acceptance import Prover, time_limit
from pruning_core.artifacts.bundle import write_manifest, write_reports
from pruning_core.artifacts.card import base_licence
from pruning_core.artifacts.probes import make_probes
from pruning_core.artifacts.stock import check_stock
from pruning_core.checks.request import check_local_inputs, check_model
from pruning_core.data.columns import resolved
from pruning_core.data.defined import check_defined
from pruning_core.data.labels import placed
from pruning_core.data.rows import Rows
from pruning_core.engines.limits import limits_of
from pruning_core.errors import OutOfMemory, PruningError, Rejected, StorageFull, TargetUnreachable
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context
from pruning_core.evidence.gathering import gather_evidence
from pruning_core.evidence.warnings import data_warnings
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.hub import model_folder
from pruning_core.files.paths import appearing, is_local
from pruning_core.kept.folder import KeptFolder
from pruning_core.kept.statistics import Statistics
from pruning_core.machine.environment import choose_device
from pruning_core.machine.resources import disk_is_full, memory_is_full
from pruning_core.measure.halves import LEAST_ROWS_TO_HALVE, halved
from pruning_core.measure.latency import limited_threads
from pruning_core.measure.ledger.ledger import Ledger
from pruning_core.measure.quality import Evaluator
from pruning_core.measure.stored import StoredPrecision
from pruning_core.methods.base import Planner
from pruning_core.methods.registry import planner_for
from pruning_core.models.load import load_task_model
from pruning_core.models.placement import place_weights
from pruning_core.plugin.words import plain_config
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report
from pruning_core.report.reproduction import ReproductionReport
from pruning_core.run.candidate import Candidate, CandidateBuilder
from pruning_core.run.engine_targets import EnginePlanner, budgets_of, installed_for, judged
from pruning_core.run.engines import engine_prover, run_in_engines
from pruning_core.run.floor import shares_that_hold
from pruning_core.run.further import further_sets, notes_of_sets
from pruning_core.run.kept import statistics_of
from pruning_core.run.reporting import scarce, summed_up
from pruning_core.run.reproduction import read_splits
from pruning_core.run.verdict import accepted, rejection
from pruning_core.spec.artifacts import FLOOR_TRIALS
from pruning_core.spec.latency import LatencySpec
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import KeepTarget, Target, target_name
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel
from pruning_core.training.healing import check_data
from pruning_core.training.runner import TrainingRunner


def run(
    spec: PruneSpec,
    out: Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    cache: Path | None = None,
    statistics: KeptFolder | None = None,
    scratch: Path | None = None,
    engines: Path | None = None,
    model_name: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Report:
    """Prune a model as a spec says, and write the bundle.

    Args:
        spec: The request.
        out: Folder of the bundle; must not exist, or be empty. It appears whole, or not at all.
        device: A torch device; None: a GPU if there is one, else the CPU.
        threads: CPU threads of the run, and of this call alone; None: torch's default. Latency has its own setting in the spec.
        cache: Folder for measurements that later runs can reuse (latency tables); None: keep nothing.
        statistics: Folder of what runs find out about dense models: what an earlier run has kept is not gathered again, and the
            weights are the same to the last bit. None: keep nothing.
        scratch: Folder that outlives this call. Training keeps its checkpoints there, and a later call with the same spec
            resumes from them. None: keep nothing.
        engines: Folder of the environments of engines; None: see `pruning_core.engines.registry.engines_folder`.
        model_name: Name of the model in the report, where its place is nobody's business; None: as in the spec.
        on_progress: Called at every step.

    Returns:
        The report, which is also in the bundle.

    Raises:
        PruningError: One of its subclasses, for everything that a user can act on. A `Rejected` means that the bundle was
            written but does not hold what was promised; the error carries the report.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PruningError("the output folder must not exist, or be empty", param="out")
    check_local_inputs(spec)
    target_device = choose_device(device)
    try:
        with nullcontext() if threads is None else limited_threads(threads), appearing(out) as partial:
            report, rejected = _run(
                spec,
                partial,
                device=target_device,
                cache=cache,
                kept=statistics,
                scratch=scratch,
                engines=engines,
                model_name=model_name,
                clock=StageClock(on_progress),
            )
    except (OutOfMemory, StorageFull):
        raise
    except Exception as error:
        if memory_is_full(error):
            hint = "lower calibration.memory_mb, samples or batch_tokens"
            raise OutOfMemory(f"out of memory on {target_device}; {hint}") from error
        if disk_is_full(error):
            raise StorageFull("the disk is full; make room, nothing of the bundle was kept") from error
        raise
    if rejected is not None:
        rejected.report = report
        raise rejected
    return report


def _run(
    spec: PruneSpec,
    folder: Path,
    *,
    device: torch.device,
    cache: Path | None,
    kept: KeptFolder | None,
    scratch: Path | None,
    engines: Path | None,
    model_name: str | None,
    clock: StageClock,
) -> tuple[Report, Rejected | None]:
    if spec.trains:
        clock.expect_training()
    if spec.artifacts.engines:
        clock.expect_engines()
    installed = installed_for(spec, engines)
    with clock.stage("load"):
        source = model_folder(spec.model, spec.revision)
        if not is_local(spec.model):  # only a local model could be checked at submit
            check_model(spec, source)
        memory = place_weights(spec, read_checkpoint(source), device)
        pages = folder if memory.weights == "paged" else None
        dense = load_task_model(source, spec.task.type, device, pages=pages)
        spec, train, validation, again = _read(spec, dense, private=model_name is not None)
        statistics = statistics_of(spec, dense, again, kept)
        further = further_sets(spec, dense, statistics)
        ledger = Ledger.asked_for(spec, dense, validation)  # what it can't read is told before the work, too
    config = plain_config(dense.model.config.to_dict())
    limits = limits_of(spec.artifacts, config, drops_attention=spec.method.drops_attention)
    # What can't be reached is told before the work.
    plans = EnginePlanner(spec, dense, limits, installed, cache, engines).plans(clock)
    evidence = gather_evidence(spec, dense, train, folder, clock, statistics=statistics)
    if spec.recovery.heal.heals:
        check_data(spec, evidence)
    ctx = Context(dense, evidence, clock, spec.seed, limits=limits, budgets=budgets_of(plans), statistics=statistics)
    odd = [*data_warnings(spec.task, dense, train, validation, ctx.evidence.calibration), *evidence.notes]
    if spec.artifacts.layout == "stock":
        check_stock(ctx.evidence.dense, cuts=spec.method.removes_units)
    planner = planner_for(spec, ctx, cache)
    judging, selecting, halves = _evaluators(spec, dense, validation, statistics)
    builder = CandidateBuilder(
        spec,
        ctx,
        judging,
        selecting,
        make_probes(validation, spec.evaluation.max_length, KINDS[spec.task.type].reads),
        TrainingRunner(spec, ctx, train, scratch),
        StoredPrecision(spec, dense, judging.tokens),
        further,
        ledger,
        engines,
    )
    candidates: list[Candidate] = []
    for part, target in enumerate(spec.all_targets):
        clock.begin_part(part, len(spec.all_targets))
        candidates.append(_reach(target, planner, builder, _place(folder, part, target)))
    if not candidates:
        candidates.append(_hold_floor(spec, planner, builder, folder))
    with clock.stage("accept"):
        if dense.pages is not None:
            give_back()
        limit_s = time_limit(clock.report())
        prover = Prover(
            dense, builder.probes, _timing_again(spec, candidates), spec.artifacts.layout != "stock", spec.seed, limit_s
        )
        proofs = prover.prove([candidate.expected for candidate in candidates])
    outcomes = [accepted(candidate, proof) for candidate, proof in zip(candidates, proofs, strict=True)]
    if spec.artifacts.engines:
        outcomes = run_in_engines(engine_prover(prover, spec, validation, engines), candidates, outcomes, clock)
        outcomes = [judged(plans, candidate, outcome) for candidate, outcome in zip(candidates, outcomes, strict=True)]
    with clock.stage("bundle"):
        report = summed_up(
            spec,
            ctx,
            candidates,
            outcomes,
            memory=memory,
            odd=[*odd, *notes_of_sets(further), *halves, *scarce(spec, dense, train), *statistics.warnings],
            model_name=model_name,
            again=again,
        )
        licence = base_licence(dense.source)
        for candidate, outcome in list(zip(candidates, outcomes, strict=True))[1:]:
            write_reports(candidate.expected.folder, spec, report.narrowed_to(outcome), licence=licence)
        write_reports(folder, spec, report, licence=licence)
        write_manifest(folder)
    return report, rejection(spec, outcomes, proofs)


def _timing_again(spec: PruneSpec, candidates: Sequence[Candidate]) -> LatencySpec:
    """Return the measurement of the fresh process, which takes as many turns as this one's longest needed to be sure."""
    turns = [own.measured.latency.repeats for own in candidates if own.expected.measure_again]
    return spec.latency.but(repeats=max(turns), within=0) if spec.latency.narrow and turns else spec.latency


def _read(spec: PruneSpec, dense: TaskModel, *, private: bool) -> tuple[PruneSpec, Rows, Rows, ReproductionReport]:
    """Read the task's data.

    Returns:
        The request with all columns named, the training rows, the validation rows, and what it takes to make the bundle again.
    """
    task, guessed = resolved(spec.task)  # a data set of the Hub: a local one was resolved when it was checked
    spec = spec.but(task=task)
    splits, again = read_splits(spec, dense, private=private)
    train, validation = placed(task, splits, dense.classes)
    same = check_defined(task, (validation.labels or ())[: spec.evaluation.max_samples], dense.classes)
    return spec, replace(train, notes=(*guessed, *train.notes, *same)), validation, again


def _reach(target: Target, planner: Planner, builder: CandidateBuilder, folder: Path) -> Candidate:
    """Build the checkpoint of a target. If it misses a latency, build it again by the planner's further plans."""
    candidate: Candidate | None = None
    for plan in planner.plans(target):
        candidate = builder.make(target, plan, folder)
        if candidate.measured.target_report.met:
            break
    assert candidate is not None, "a planner gives at least one plan"
    return candidate


def _hold_floor(spec: PruneSpec, planner: Planner, builder: CandidateBuilder, folder: Path) -> Candidate:
    """Build the checkpoint with the fewest MACs that holds the quality floor; if none does, the largest that was tried."""
    floor, clock, trial = spec.quality_floor, builder.ctx.clock, 0
    assert floor is not None, "a spec has targets or a floor"

    def holds(share: float) -> bool:
        nonlocal trial
        clock.begin_part(trial, FLOOR_TRIALS + 1)
        trial += 1
        try:
            plan = next(planner.plans(KeepTarget(metric="macs", keep=share)))
        except TargetUnreachable:
            return False
        return builder.try_out(plan, floor).held

    shares = shares_that_hold(holds)
    clock.begin_part(FLOOR_TRIALS, FLOOR_TRIALS + 1)
    candidate: Candidate | None = None
    # A checkpoint may miss the floor that its trial held, on the judging rows or rounded to its stored type: then the next.
    for place, share in enumerate(shares, start=1):
        candidate = _of_search(_reach(KeepTarget(metric="macs", keep=share), planner, builder, folder), builder, place)
        if candidate.measured.floor is not None and candidate.measured.floor.held:
            break
    assert candidate is not None, "there is at least one share"
    return candidate


def _of_search(candidate: Candidate, builder: CandidateBuilder, judged: int) -> Candidate:
    """Add to the floor's report on which rows the checkpoint was chosen, and as how many-th it was judged."""
    floor = candidate.measured.floor
    assert floor is not None, "the search is for a floor"
    selected = None if builder.selector is builder.evaluator else builder.selector.rows
    measured = replace(candidate.measured, floor=floor.but(selected_on=selected, judged=judged))
    return replace(candidate, measured=measured)


def _evaluators(
    spec: PruneSpec, dense: TaskModel, validation: Rows, statistics: Statistics
) -> tuple[Evaluator, Evaluator, list[str]]:
    """Return what judges checkpoints, what selects in the search for a floor, and a warning if the rows are the same."""
    if spec.all_targets:
        whole = Evaluator(spec, dense, validation, statistics=statistics)
        return whole, whole, []
    rows = validation.take(range(len(validation))[: spec.evaluation.max_samples])
    halves = halved(rows, spec.seed, in_order=dense.family.joins_rows)
    judging = Evaluator(spec, dense, halves.judging, statistics=statistics)
    if halves.apart:
        return judging, Evaluator(spec, dense, halves.selecting, statistics=statistics), []
    said = (
        f"the search for the floor selected and judged on the same {len(rows)} validation rows: the quality is the luckiest of "
        f"those that were tried; from {LEAST_ROWS_TO_HALVE} rows on, half of them select and the others judge"
    )
    return judging, judging, [said]


def _place(folder: Path, part: int, target: Target) -> Path:
    """Return the folder of a checkpoint: the bundle itself for the first target, a sub-folder for others."""
    return folder / target_name(target) if part else folder
