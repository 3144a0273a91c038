"""What a run needs before it builds anything: model, data, evidence, statistics, and the means to plan and to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pruning_core.arch.adapter import adapt
from pruning_core.artifacts.ahead import Ahead
from pruning_core.artifacts.probes import make_probes
from pruning_core.artifacts.stock import check_stock
from pruning_core.checks.experts import laid_out
from pruning_core.checks.request import check_model
from pruning_core.data.columns import resolved
from pruning_core.data.defined import check_defined
from pruning_core.data.labels import placed
from pruning_core.data.rows import Rows
from pruning_core.engines.limits import limits_of
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context
from pruning_core.evidence.gathering import gather_evidence
from pruning_core.evidence.warnings import data_warnings
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.hub import model_folder
from pruning_core.files.paths import is_local
from pruning_core.kept.folder import KeptFolder
from pruning_core.kept.statistics import Statistics
from pruning_core.measure.halves import LEAST_ROWS_TO_HALVE, halved
from pruning_core.measure.ledger.ledger import Ledger
from pruning_core.measure.quality import Evaluator
from pruning_core.measure.stored import StoredPrecision
from pruning_core.methods.base import Planner
from pruning_core.methods.registry import planner_for
from pruning_core.models.load import load_task_model
from pruning_core.models.opened import opened
from pruning_core.models.placement import place_weights
from pruning_core.plugin.words import plain_config
from pruning_core.report.adapter import AdapterReport
from pruning_core.report.report import MemoryReport
from pruning_core.report.reproduction import ReproductionReport
from pruning_core.report.vocabulary import VocabularyReport
from pruning_core.run.candidate import CandidateBuilder
from pruning_core.run.engine_targets import EnginePlan, EnginePlanner, budgets_of, installed_for
from pruning_core.run.further import further_sets, notes_of_sets
from pruning_core.run.kept import statistics_of
from pruning_core.run.reporting import scarce
from pruning_core.run.reproduction import read_splits
from pruning_core.run.vocabulary import cut_model, notes_of_vocabulary
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel
from pruning_core.training.healing import check_data
from pruning_core.training.runner import TrainingRunner


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of a run.

    Attributes:
        work: Where it may write while it runs.
        cache: For measurements that later runs can reuse (latency tables); None: keep nothing.
        statistics: For what it finds out about the dense model; None: keep nothing.
        scratch: Outlives the run, for the checkpoints of trainings; None: keep nothing.
        engines: Environments of engines; None: see `pruning_core.engines.registry.engines_folder`.
        beside: Outside the bundle, for models that are converted or cut before they are pruned.
    """

    work: Path
    cache: Path | None = None
    statistics: KeptFolder | None = None
    scratch: Path | None = None
    engines: Path | None = None
    beside: Path | None = None

    def aside(self, name: str) -> Path:
        """Make a folder outside the bundle."""
        assert self.beside is not None, "runs have one"
        folder = self.beside / name
        folder.mkdir()
        return folder


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can build checkpoints.

    Attributes:
        spec: The request, with all columns named.
        ctx: Dense model, evidence, clock and statistics.
        planner: Makes plans for targets, from statistics of the dense model.
        builder: Builds and judges checkpoints.
        engine_plans: The plans of latencies in engines.
        validation: The validation rows.
        memory: Where the weights are.
        again: What it takes to make the bundle again.
        notes: Warnings about the data.
        vocabulary: The vocabulary that was cut; None where it is whole.
        adapter: The adapter that was merged; None where there was none.
    """

    spec: PruneSpec
    ctx: Context
    planner: Planner
    builder: CandidateBuilder
    engine_plans: Mapping[str, EnginePlan]
    validation: Rows
    memory: MemoryReport
    again: ReproductionReport
    notes: tuple[str, ...]
    vocabulary: VocabularyReport | None
    adapter: AdapterReport | None


def prepare(
    spec: PruneSpec,
    places: Places,
    device: torch.device,
    clock: StageClock,
    *,
    private: bool,
    ahead: Ahead | None = None,
) -> Prepared:
    """Load the model, read the data, and gather the statistics of the dense model, or find them.

    Args:
        spec: The request.
        places: Folders.
        device: Where to compute.
        clock: Told of every step.
        private: Whether the places of folders are nobody's business: their last names stay.
        ahead: The process that will prove the bundle, if it runs already.
    """
    if spec.trains:
        clock.expect_training()
    if spec.artifacts.engines:
        clock.expect_engines()
    installed = installed_for(spec, places.engines)
    with clock.stage("load"):
        origin = model_folder(spec.model, spec.revision)
        came = opened(spec, origin, places.aside)
        source = came.folder
        if not is_local(spec.model) or source != origin:  # only a local checkpoint could be checked at submit
            check_model(spec, source)
        memory = place_weights(spec, read_checkpoint(source), device)
        pages = places.work if memory.weights == "paged" else None
        dense = load_task_model(source, spec.task.type, device, pages=pages)
        config = plain_config(dense.model.config.to_dict())
        spec = laid_out(spec, adapt(dense.model).groups, config)
        spec, train, validation, again = _read(spec, dense, origin, private=private)
        cut = cut_model(spec, dense, (train, validation), lambda: places.aside("cut"))
        dense = dense if cut is None else cut.task
        statistics = statistics_of(
            spec, dense, again, places.statistics, tokens=None if cut is None else cut.kept, adapter=came.adapter
        )
        further = further_sets(spec, dense, statistics)
        ledger = Ledger.asked_for(spec, dense, validation)  # what it can't read is told before the work, too
    limits = limits_of(spec.artifacts, config, drops_attention=spec.method.drops_attention)
    # What can't be reached is told before the work.
    plans = EnginePlanner(spec, dense, limits, installed, places.cache, places.engines).plans(clock)
    evidence = gather_evidence(spec, dense, train, places.work, clock, statistics=statistics)
    if spec.recovery.heal.heals:
        check_data(spec, evidence)
    ctx = Context(dense, evidence, clock, spec.seed, limits=limits, budgets=budgets_of(plans), statistics=statistics)
    odd = [*data_warnings(spec.task, dense, train, validation, evidence.calibration), *evidence.notes]
    if spec.artifacts.layout == "stock":
        check_stock(evidence.dense, cuts=spec.method.removes_units)
    planner = planner_for(spec, ctx, places.cache)
    judging, selecting, halves = _evaluators(spec, dense, validation, statistics)
    builder = CandidateBuilder(
        spec,
        ctx,
        judging,
        selecting,
        make_probes(validation, spec.evaluation.max_length, KINDS[spec.task.type].reads),
        TrainingRunner(spec, ctx, train, places.scratch),
        StoredPrecision(spec, dense, judging.tokens),
        further,
        ledger,
        places.engines,
        ahead,
    )
    vocabulary = None if cut is None else cut.report
    notes = (*came.notes, *odd, *notes_of_sets(further), *halves, *scarce(spec, dense, train), *notes_of_vocabulary(vocabulary))
    return Prepared(spec, ctx, planner, builder, plans, validation, memory, again, notes, vocabulary, came.adapter)


def _read(
    spec: PruneSpec, dense: TaskModel, origin: Path, *, private: bool
) -> tuple[PruneSpec, Rows, Rows, ReproductionReport]:
    """Read the task's data.

    Returns:
        The request with all columns named, the training rows, the validation rows, and what it takes to make the bundle again.
    """
    task, guessed = resolved(spec.task)  # a data set of the Hub: a local one was resolved when it was checked
    spec = spec.but(task=task)
    splits, again = read_splits(spec, dense, origin, private=private)
    train, validation = placed(task, splits, dense.classes)
    same = check_defined(task, (validation.labels or ())[: spec.evaluation.max_samples], dense.classes)
    return spec, replace(train, notes=(*guessed, *train.notes, *same)), validation, again


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
