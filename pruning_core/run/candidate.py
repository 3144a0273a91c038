"""Building one checkpoint: prune, repair, train, write, load back and measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.linear import is_transposed
from pruning_core.arch.paging import device_map
from pruning_core.artifacts.acceptance import Expectation
from pruning_core.artifacts.ahead import Ahead
from pruning_core.artifacts.bundle import write_checkpoint, write_compressed_form
from pruning_core.artifacts.compressed import NothingToCompress
from pruning_core.artifacts.exports.base import Exported
from pruning_core.artifacts.exports.registry import export_all
from pruning_core.artifacts.onnx import ExportFailed, export_onnx
from pruning_core.artifacts.probes import ProbeInput, answer
from pruning_core.artifacts.rounded import store_rounded
from pruning_core.errors import MetricUndefined
from pruning_core.evidence.context import Context, generator
from pruning_core.measure.certainty import Comparison
from pruning_core.measure.latency import measure_blocks, measure_latency
from pruning_core.measure.ledger.ledger import Ledger
from pruning_core.measure.outcome import Measured, count_shapes
from pruning_core.measure.quality import Evaluator
from pruning_core.measure.sparse_products import measure_products
from pruning_core.measure.stored import StoredPrecision
from pruning_core.methods.base import Applied, Choosing, Plan, TrainingPlan, Written
from pruning_core.methods.storage import stored_options
from pruning_core.methods.zeroing import apply_zeros_
from pruning_core.models.load import load_task_model
from pruning_core.report.also import AlsoReport
from pruning_core.report.engines import ExportReport
from pruning_core.report.healing import HealingReport
from pruning_core.report.ledger import LedgerReport
from pruning_core.report.products import ProductsReport
from pruning_core.report.report import FloorReport, LatencyReport, QualityReport
from pruning_core.report.training import TrainingReport
from pruning_core.run.further import FurtherSet, judge_all
from pruning_core.spec.artifacts import QualityFloor
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import BytesTarget, Target, is_measured_here, target_name
from pruning_core.tasks.base import TaskModel
from pruning_core.training.runner import TrainingRunner

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Reason why a paged model has no ONNX graph and no compressed form.
_TOO_LARGE = "the model is larger than the memory of its device, and this form is made of all of it at once"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A written checkpoint.

    Attributes:
        plan: The plan that it was made by.
        measured: Counts and measurements of this process.
        expected: What a fresh process must find in it.
        export_problem: Why a requested ONNX graph could not be written; None otherwise.
        compress_problem: Why a requested compressed form could not be written; None otherwise.
        exports: Rows of the report on further formats.
    """

    plan: Plan
    measured: Measured
    expected: Expectation
    export_problem: str | None
    compress_problem: str | None
    exports: tuple[ExportReport, ...] = ()

    @property
    def target(self) -> Target:
        """The target that it was made for."""
        return self.measured.target


@dataclass(frozen=True, slots=True)
class Pruned:
    """A pruned model in memory, the result of its pruning and repair, and the reports of its training and its healing."""

    student: PreTrainedModel
    applied: Applied
    training: TrainingReport | None = None
    healing: HealingReport | None = None


@dataclass(frozen=True, slots=True)
class CandidateBuilder:
    """Builds the checkpoints of one run.

    Attributes:
        spec: The request.
        ctx: Dense model and evidence.
        evaluator: Evaluates models on the validation split; after a search for a floor, on the rows that did not select.
        selector: Evaluates the trials of a search for a floor, on rows of their own where there are enough.
        probes: Held-out inputs for the acceptance check.
        trainer: Trains students.
        precision: Chooses the precision in which written checkpoints are evaluated.
        further: Further evaluation sets, on which checkpoints are judged, too.
        ledger: Judges capabilities beside the task; None where none was asked for.
        engines: Folder of the environments of engines; None: see `pruning_core.engines.registry.engines_folder`.
        ahead: The process that will prove the checkpoints, if it runs already.
    """

    spec: PruneSpec
    ctx: Context
    evaluator: Evaluator
    selector: Evaluator
    probes: tuple[ProbeInput, ...]
    trainer: TrainingRunner
    precision: StoredPrecision
    further: tuple[FurtherSet, ...] = ()
    ledger: Ledger | None = None
    engines: Path | None = None
    ahead: Ahead | None = None

    def try_out(self, plan: Plan, floor: QualityFloor) -> FloorReport:
        """Judge the floor by a plan's repaired model on the selecting rows, without writing it."""
        student = self._repaired(plan).student
        with self.ctx.clock.stage("evaluate", self.selector.steps) as step:
            found = self.selector.judge(self.ctx.task_model.with_model(student), step)
        check_floor(floor, found.quality)
        return found.floor(floor)

    def make(self, target: Target, plan: Plan, folder: Path) -> Candidate:
        """Prune, repair and train a student, write it, and measure the written checkpoint.

        Args:
            target: The target of the checkpoint.
            plan: How to prune.
            folder: Where to write.
        """
        spec, ctx = self.spec, self.ctx
        clock, dense = ctx.clock, ctx.task_model
        made = self._made(target, plan)
        applied, training, healing = made.applied, made.training, made.healing
        with clock.stage("materialise"):
            folder.mkdir(exist_ok=True)
            options = stored_options(spec.artifacts, dense.stored_dtype) if isinstance(target, BytesTarget) else spec.artifacts
            write_checkpoint(folder, dense, ctx.evidence.dense, made.student, options)
            if applied.rounded:
                modules = dict(made.student.named_modules())
                store_rounded(folder, applied.rounded, frozenset(own for own in applied.rounded if is_transposed(modules[own])))
            compressed = self._compress(plan, made.student, folder)
            del made  # the student takes as much memory as the model that is loaded back
            pruned = load_task_model(folder, spec.task.type, dense.device, pages=dense.pages)
            export_problem = self._export(pruned, folder)
            exports = export_all(Exported(folder, pruned, dense, spec.artifacts, self.probes, spec.latency, self.engines))
        found, also, ledger = self._judged(pruned)
        latency, products = self._timed(pruned, plan)
        shapes = count_shapes(
            folder,
            source=dense,
            dense=ctx.evidence.dense,
            length=ctx.evidence.calibration.mean_length,
            mask=applied.mask,
            sublayers=applied.sublayers,
            latency=latency,
        )
        measured = Measured(
            target=target,
            shapes=shapes,
            zeros=plan.recount(Written(folder, ctx.evidence.dense, applied, shapes, products)),
            quality=found.quality,
            latency=latency,
            layout=spec.artifacts.layout,
            stored_dtype=pruned.stored_dtype,
            floor=self._floor(found),
            training=training,
            healing=healing,
            where=found.where,
            also=also,
            ledger=ledger,
        )
        expected = Expectation(
            folder=folder,
            answers=answer(pruned, self.probes),
            parameters=shapes.recounted.parameters[1],
            bytes=shapes.bytes.pruned,
            onnx="onnx" in spec.artifacts.formats and export_problem is None,
            measure_again=is_measured_here(target),
            compressed=compressed if isinstance(compressed, dict) else None,
            device_map=None if pruned.pages is None else device_map(pruned.model, pruned.device),
        )
        compress_problem = compressed if isinstance(compressed, str) else None
        return Candidate(plan, measured, expected, export_problem, compress_problem, exports)

    def ask_dense(self) -> None:
        """Let the dense model answer all evaluation rows, in the precision that checkpoints will probably be judged in."""
        evaluators = [self.evaluator, *(further.evaluator for further in self.further)]
        if self.selector is not self.evaluator:
            evaluators.append(self.selector)
        batches = [len(own.tokens.batches) for own in evaluators]
        with self.ctx.clock.stage("evaluate", sum(batches)) as step, self.precision.expected():
            for place, own in enumerate(evaluators):
                before = sum(batches[:place])
                own.ask_dense(lambda done, before=before: step(before + done))

    def _judged(self, pruned: TaskModel) -> tuple[Comparison, tuple[AlsoReport, ...], LedgerReport | None]:
        """Judge the written checkpoint by its task, on the further sets, and by the ledger if there is one."""
        own = self.evaluator.steps
        before = own + sum(further.evaluator.steps for further in self.further)
        with (
            self.ctx.clock.stage("evaluate", before + (0 if self.ledger is None else self.ledger.steps)) as step,
            self.precision.evaluated(pruned) as precision,
        ):
            found = self.evaluator.judge(pruned, step).computed_in(precision)
            also = tuple(row.computed_in(precision) for row in judge_all(self.further, pruned, step, own))
            ledger = self.ledger
            return found, also, ledger and ledger.judge(pruned, found, lambda done: step(before + done))

    def _made(self, target: Target, plan: Plan) -> Pruned:
        """Prune and repair a student; train it if the plan says so, or heal it if the request does."""
        training = plan.training
        if training is not None and training.choosing is not None:
            pruned = self._chosen(training, training.choosing, target)
        else:
            pruned = self._repaired(plan)
            if self._is_last(target):
                self.ctx.evidence.states.release()
            if training is not None:
                pruned = self._trained(pruned, training, target)
        if self.spec.recovery.heal.heals:
            healing = self.trainer.heal_(pruned.student, keeps_zeros=plan.zeroes_weights, name=target_name(target))
            pruned = replace(pruned, healing=healing)
        return replace(pruned, applied=plan.finish_(pruned.student, pruned.applied, self.spec.artifacts.layout))

    def _is_last(self, target: Target) -> bool:
        """Return whether no other repair can follow: for another target, or after a missed latency or quality floor."""
        return self.spec.all_targets == (target,) and not is_measured_here(target)

    def _repaired(self, plan: Plan) -> Pruned:
        student = clone(self.ctx.task_model.model)
        with self.ctx.clock.stage("recover", len(self.ctx.groups)) as step:
            return Pruned(student, plan.apply_(student, self.ctx.evidence, self.spec.recovery, on_sublayer=step))

    def _trained(self, pruned: Pruned, training: TrainingPlan, target: Target) -> Pruned:
        """Train the pruned student, or a new student from the dense weights."""
        student = clone(self.ctx.task_model.model) if training.from_dense else pruned.student
        student, report = self.trainer.train_(student, training.recipe, training.options, name=target_name(target))
        return Pruned(student, pruned.applied, report)

    def _chosen(self, training: TrainingPlan, choosing: Choosing, target: Target) -> Pruned:
        """Let training choose the weights that stay, refit them from the dense weights, and train on."""
        dense, evidence = self.ctx.task_model.model, self.ctx.evidence
        applied: list[Applied] = []

        def refit(chosen: PreTrainedModel) -> PreTrainedModel:
            student, kept = clone(dense), choosing.kept(chosen)
            options, recovery = choosing.refit, self.spec.recovery
            applied.append(apply_zeros_(student, kept, evidence, options, recovery, on_sublayer=lambda _done: None))
            if self._is_last(target):
                evidence.states.release()
            return student

        student, report = self.trainer.train_(
            clone(dense),
            training.recipe,
            training.options,
            name=target_name(target),
            first=choosing.first,
            refit=refit,
        )
        return Pruned(student, applied[0], report)

    def _timed(self, pruned: TaskModel, plan: Plan) -> tuple[LatencyReport, ProductsReport | None]:
        """Time the checkpoint beside the dense model, and products with its matrices if they hold zeros."""
        spec, dense = self.spec, self.ctx.task_model
        timing = spec.latency if len(spec.all_targets) <= 1 else spec.latency.for_frontier()
        with self.ctx.clock.stage("latency", timing.repeats) as step:
            if self.ahead is not None:
                self.ahead.settle()
            measure = measure_latency if dense.pages is None else measure_blocks
            latency = measure(dense, pruned, timing, generator(spec.seed, "latency"), step)
            if not plan.zeroes_weights or dense.pages is not None:
                return latency, None
            return latency, measure_products(pruned.model, latency, pruned.stored_dtype, generator(spec.seed, "products"))

    def _export(self, pruned: TaskModel, folder: Path) -> str | None:
        if "onnx" not in self.spec.artifacts.formats:
            return None
        if pruned.pages is not None:
            return _TOO_LARGE
        try:
            export_onnx(pruned, folder)
        except ExportFailed as error:
            return str(error)
        return None

    def _compress(self, plan: Plan, student: PreTrainedModel, folder: Path) -> dict[str, int] | str | None:
        """Write the compressed form if requested.

        Returns:
            The number of matrices by form; or a sentence saying why there is no compressed form; None if none was requested.
        """
        if "compressed" not in self.spec.artifacts.formats:
            return None
        if self.ctx.task_model.pages is not None:
            return _TOO_LARGE
        matrices = adapt(student).linears
        # Blocks are arranged output-major: a matrix that is stored input-major is indexed bit by bit.
        hints = {
            name: None if is_transposed(matrices[name]) else block for name, block in plan.zero_blocks(list(matrices)).items()
        }
        try:
            return write_compressed_form(folder, self.ctx.task_model, student, hints)
        except NothingToCompress as problem:
            return str(problem)

    def _floor(self, found: Comparison) -> FloorReport | None:
        floor = self.spec.quality_floor
        if floor is None:
            return None
        check_floor(floor, found.quality)
        return found.floor(floor)


def check_floor(floor: QualityFloor | None, quality: QualityReport) -> None:
    """Refuse a relative floor for a dense model whose quality is not above 0: any model would hold a share of it.

    Raises:
        MetricUndefined: It is so.
    """
    if floor is None or floor.kind == "absolute" or quality.lower_is_better or quality.dense > 0:
        return
    raise MetricUndefined(
        f"the dense model's {quality.metric} is {quality.dense:.4f}, and a share of that is no floor; give an absolute "
        "quality_floor, or a model and labels that fit each other",
        param="quality_floor",
    )
