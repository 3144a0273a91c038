"""The pipeline: from a spec to a bundle and its report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from pruning_core.arch.paging import give_back
from pruning_core.artifacts.acceptance import STEPS, Prover, time_limit
from pruning_core.artifacts.ahead import Ahead, started
from pruning_core.artifacts.bundle import write_manifest, write_reports
from pruning_core.artifacts.card import base_licence
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import OutOfMemory, PruningError, Rejected, StorageFull, TargetUnreachable
from pruning_core.evidence.clock import StageClock
from pruning_core.files.paths import appearing
from pruning_core.kept.folder import KeptFolder
from pruning_core.machine.environment import choose_device
from pruning_core.machine.resources import disk_is_full, memory_is_full
from pruning_core.measure.latency import limited_threads
from pruning_core.methods.base import Foreseeing, Planner
from pruning_core.report.outlook import OutlookReport
from pruning_core.report.progress import Progress
from pruning_core.report.report import Outcome, Report
from pruning_core.report.statistics import StatisticsReport
from pruning_core.run.candidate import Candidate, CandidateBuilder
from pruning_core.run.engine_targets import judged
from pruning_core.run.engines import engine_prover, run_in_engines
from pruning_core.run.floor import shares_that_hold
from pruning_core.run.preparation import Places, prepare
from pruning_core.run.reporting import summed_up
from pruning_core.run.verdict import accepted, rejection
from pruning_core.spec.artifacts import FLOOR_TRIALS
from pruning_core.spec.latency import LatencySpec
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import KeepTarget, Target, any_measured, target_name
from pruning_core.spec.tasks import KINDS


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
    name: str | None = None,
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
        name: What the run is called, for its report.
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
    chosen, clock = choose_device(device), StageClock(on_progress)
    with (
        _told_when_full(chosen),
        nullcontext() if threads is None else limited_threads(threads),
        appearing(out) as partial,
        tempfile.TemporaryDirectory(prefix=".coppice-", dir=partial.parent) as beside,
        _proving_ahead(spec) as ahead,
    ):
        places = Places(partial, cache, statistics, scratch, engines, Path(beside))
        report, rejected = _run(spec, places, ahead, device=chosen, model_name=model_name, clock=clock, name=name)
    if rejected is not None:
        rejected.report = report
        raise rejected
    return report


def calibrate(
    spec: PruneSpec,
    statistics: KeptFolder,
    *,
    device: str | None = None,
    threads: int | None = None,
    cache: Path | None = None,
    engines: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> StatisticsReport:
    """Find out about a dense model what no target changes, and keep it: runs on the same model and data start from there.

    Args:
        spec: The request of a run; its target is of no account.
        statistics: Where to keep it.
        device: As in `run`.
        threads: As in `run`: other threads may round differently.
        cache: As in `run`.
        engines: As in `run`.
        on_progress: Called at every step.

    Returns:
        What was there already, and what was gathered.

    Raises:
        PruningError: One of its subclasses, for everything that a user can act on.
    """
    check_local_inputs(spec)
    chosen, clock = choose_device(device), StageClock(on_progress)
    with (
        _told_when_full(chosen),
        nullcontext() if threads is None else limited_threads(threads),
        tempfile.TemporaryDirectory(prefix="coppice-") as work,
    ):
        prepared = prepare(spec, Places(Path(work), cache, statistics, None, engines, Path(work)), chosen, clock, private=False)
        prepared.builder.ask_dense()
        found = prepared.ctx.statistics.report()
    assert found is not None, "there is a folder"
    return found


@contextmanager
def _told_when_full(device: torch.device) -> Generator[None]:
    """Tell what is full, memory or disk, where an error inside the context was for want of it."""
    try:
        yield
    except (OutOfMemory, StorageFull):
        raise
    except Exception as error:
        if memory_is_full(error):
            hint = "lower calibration.memory_mb, samples or batch_tokens"
            raise OutOfMemory(f"out of memory on {device}; {hint}") from error
        if disk_is_full(error):
            raise StorageFull("the disk is full; make room, nothing of the bundle was kept") from error
        raise


def _proving_ahead(spec: PruneSpec) -> AbstractContextManager[Ahead | None]:
    """Start the process that will prove the bundle, unless times are measured from the start on, or it would wait for hours."""
    if spec.trains or spec.artifacts.engines or any_measured(spec.all_targets):
        return nullcontext()
    return started(embeds=not KINDS[spec.task.type].has_loss)


def _run(
    spec: PruneSpec,
    places: Places,
    ahead: Ahead | None,
    *,
    device: torch.device,
    model_name: str | None,
    clock: StageClock,
    name: str | None,
) -> tuple[Report, Rejected | None]:
    prepared = prepare(spec, places, device, clock, private=model_name is not None, ahead=ahead)
    spec, ctx, builder, folder = prepared.spec, prepared.ctx, prepared.builder, places.work
    dense = ctx.task_model
    candidates: list[Candidate] = []
    for part, target in enumerate(spec.all_targets):
        clock.begin_part(part, len(spec.all_targets))
        candidates.append(_reach(target, prepared.planner, builder, _place(folder, part, target)))
    if not candidates:
        candidates.append(_hold_floor(spec, prepared.planner, builder, folder))
    with clock.stage("accept", STEPS * len(candidates)) as step:
        if dense.pages is not None:
            give_back()
        limit_s = time_limit(clock.report())
        timing, signed = _timing_again(spec, candidates), spec.artifacts.layout != "stock"
        prover = Prover(dense, builder.probes, timing, signed, spec.seed, limit_s, ahead)
        proofs = prover.prove([candidate.expected for candidate in candidates], step)
    outcomes = [accepted(candidate, proof) for candidate, proof in zip(candidates, proofs, strict=True)]
    if spec.artifacts.engines:
        in_engines = engine_prover(prover, spec, prepared.validation, places.engines)
        outcomes = run_in_engines(in_engines, candidates, outcomes, clock)
        plans = prepared.engine_plans
        outcomes = [judged(plans, candidate, outcome) for candidate, outcome in zip(candidates, outcomes, strict=True)]
    with clock.stage("bundle"):
        report = summed_up(
            spec,
            ctx,
            candidates,
            outcomes,
            memory=prepared.memory,
            odd=[*prepared.notes, *ctx.statistics.warnings],
            outlook=_outlook(prepared.planner, outcomes[0]),
            model_name=model_name,
            again=prepared.again,
            vocabulary=prepared.vocabulary,
            adapter=prepared.adapter,
        ).but(name=name)
        licence = base_licence(dense.source)
        for candidate, outcome in list(zip(candidates, outcomes, strict=True))[1:]:
            write_reports(candidate.expected.folder, spec, report.narrowed_to(outcome), licence=licence)
        write_reports(folder, spec, report, licence=licence)
        write_manifest(folder)
    return report, rejection(spec, outcomes, proofs)


def _outlook(planner: Planner, built: Outcome) -> OutlookReport | None:
    """Return what other budgets would cost, in files like those of a checkpoint that was built."""
    if not isinstance(planner, Foreseeing):
        return None
    return planner.outlook(built.bytes.pruned / built.parameters.pruned)


def _timing_again(spec: PruneSpec, candidates: Sequence[Candidate]) -> LatencySpec:
    """Return the measurement of the fresh process, which takes as many turns as this one's longest needed to be sure."""
    turns = [own.measured.latency.repeats for own in candidates if own.expected.measure_again]
    return spec.latency.but(repeats=max(turns), within=0) if spec.latency.narrow and turns else spec.latency


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
    """Build the checkpoint with the fewest MACs that holds the quality floor; if none does, the largest that was tried.

    Of a mixture of experts, whose MACs do not depend on its experts, it is that with the fewest parameters.
    """
    floor, clock, trial = spec.quality_floor, builder.ctx.clock, 0
    metric = "params" if any(group.passed for group in builder.ctx.groups) else "macs"
    assert floor is not None, "a spec has targets or a floor"

    def holds(share: float) -> bool:
        nonlocal trial
        clock.begin_part(trial, FLOOR_TRIALS + 1)
        trial += 1
        try:
            plan = next(planner.plans(KeepTarget(metric=metric, keep=share)))
        except TargetUnreachable:
            return False
        return builder.try_out(plan, floor).held

    shares = shares_that_hold(holds)
    clock.begin_part(FLOOR_TRIALS, FLOOR_TRIALS + 1)
    candidate: Candidate | None = None
    # A checkpoint may miss the floor that its trial held, on the judging rows or rounded to its stored type: then the next.
    for place, share in enumerate(shares, start=1):
        candidate = _of_search(_reach(KeepTarget(metric=metric, keep=share), planner, builder, folder), builder, place)
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


def _place(folder: Path, part: int, target: Target) -> Path:
    """Return the folder of a checkpoint: the bundle itself for the first target, a sub-folder for others."""
    return folder / target_name(target) if part else folder
