"""One checkpoint: sliced, repaired, written, loaded back and measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.linear import is_transposed
from pruning_core.arch.masks import Mask
from pruning_core.arch.paging import device_map
from pruning_core.artifacts.acceptance import Expectation, ProbeInput, answer
from pruning_core.artifacts.bundle import write_checkpoint, write_compressed_form
from pruning_core.artifacts.compressed import NothingToCompress
from pruning_core.artifacts.onnx import ExportFailed, export_onnx
from pruning_core.evidence.context import Context, generator
from pruning_core.measure.latency import measure_blocks, measure_latency
from pruning_core.measure.outcome import measure_outcome
from pruning_core.measure.quality import Evaluator
from pruning_core.measure.sparse_products import measure_products
from pruning_core.methods.admm_pattern.outcome import sublayer_reports, with_pattern
from pruning_core.methods.admm_pattern.plan import PatternPlan
from pruning_core.methods.block_lasso.outcome import with_segments
from pruning_core.methods.block_lasso.plan import BlockPlan
from pruning_core.methods.planning import Plan
from pruning_core.models.load import load_task_model
from pruning_core.recovery.dead import remove_dead_
from pruning_core.recovery.matrix import Fit
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.recovery.sparsify import sparsify_
from pruning_core.report.products import ProductsReport
from pruning_core.report.report import FloorReport, LatencyReport, Outcome, QualityReport, SublayerReport
from pruning_core.report.training import TrainingReport
from pruning_core.spec.prune import PruneSpec, Target, target_name
from pruning_core.tasks.base import TaskModel
from pruning_core.training.runner import TrainingRunner

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Why there is no other form of it than safetensors.
_TOO_LARGE = "the model is larger than the memory of its device, and this form is made of all of it at once"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A written checkpoint.

    Attributes:
        target: What it was made for.
        outcome: What was measured in this process.
        claim: What a fresh process is to find.
        export_problem: Why there is no ONNX graph, where one was asked for and could not be written.
        compress_problem: Why there is no compressed form, likewise.
    """

    target: Target
    outcome: Outcome
    claim: Expectation
    export_problem: str | None
    compress_problem: str | None


@dataclass(frozen=True, slots=True)
class Repair:
    """How a repair went.

    Attributes:
        mask: Which units stayed.
        sublayers: How each sublayer's repair went.
        fits: How each matrix went, where a pattern was asked for.
        training: How its training went, where it was trained.
    """

    mask: Mask
    sublayers: tuple[SublayerReport, ...]
    fits: tuple[Fit, ...] = ()
    training: TrainingReport | None = None


@dataclass(frozen=True, slots=True)
class Repaired:
    """A pruned model in memory, and how its repair went."""

    student: PreTrainedModel
    repair: Repair


@dataclass(frozen=True, slots=True)
class CandidateBuilder:
    """Makes the checkpoints of one run.

    Attributes:
        spec: What was asked for.
        ctx: Dense model and evidence.
        evaluator: The validation split.
        probes: Held-out inputs of which the worker's outputs are kept.
        trainer: Where students are trained.
    """

    spec: PruneSpec
    ctx: Context
    evaluator: Evaluator
    probes: tuple[ProbeInput, ...]
    trainer: TrainingRunner

    def try_out(self, plan: Plan) -> QualityReport:
        """Judge a plan with its repair, writing nothing."""
        student = self._repaired(plan).student
        with self.ctx.clock.stage("evaluate", self.evaluator.steps) as step:
            return self.evaluator.compare(self.ctx.task_model.with_model(student), step)

    def make(self, target: Target, plan: Plan, folder: Path) -> Candidate:
        """Prune, repair, write, and measure what was written.

        Args:
            target: What it is to meet.
            plan: What stays.
            folder: Where to write.
        """
        spec, ctx = self.spec, self.ctx
        clock, dense = ctx.clock, ctx.task_model
        made = self._made(target, plan)
        with clock.stage("materialise"):
            folder.mkdir(exist_ok=True)
            write_checkpoint(folder, dense, ctx.evidence.dense, made.student, spec.artifacts)
            repair, compressed = made.repair, self._compress(plan, made.student, folder)
            del made  # the student takes as much memory as what is loaded back
            pruned = load_task_model(folder, spec.task.type, dense.device, pages=dense.pages)
            export_problem = self._export(pruned, folder)
        with clock.stage("evaluate", self.evaluator.steps) as step:
            quality = self.evaluator.compare(pruned, step)
        timing = spec.latency if len(spec.all_targets) <= 1 else spec.latency.for_frontier()
        with clock.stage("latency", timing.repeats) as step:
            measure = measure_latency if dense.pages is None else measure_blocks
            latency = measure(dense, pruned, timing, generator(spec.seed, "latency"), step)
            products = None if isinstance(plan, Mask) or dense.pages is not None else self._products(pruned, latency)
        counted = self._recounted(target, plan, repair, folder, quality=quality, latency=latency)
        if counted.pattern is not None:
            counted = counted.model_copy(update={"pattern": counted.pattern.model_copy(update={"products": products})})
        outcome = counted.model_copy(
            update={
                "layout": spec.artifacts.layout,
                "stored_dtype": pruned.stored_dtype,
                "quality_floor": self._floor(quality),
                "training": repair.training,
            }
        )
        claim = Expectation(
            folder=folder,
            answers=answer(pruned, self.probes),
            parameters=outcome.parameters.pruned,
            bytes=outcome.bytes.pruned,
            onnx="onnx" in spec.artifacts.formats and export_problem is None,
            measure_again=target.metric == "latency",
            compressed=compressed if isinstance(compressed, dict) else None,
            device_map=None if pruned.pages is None else device_map(pruned.model, pruned.device),
        )
        return Candidate(target, outcome, claim, export_problem, compressed if isinstance(compressed, str) else None)

    def _made(self, target: Target, plan: Plan) -> Repaired:
        """Prune, repair, and train where that is asked for."""
        repaired = self._repaired(plan)
        if self._is_last(target):
            self.ctx.evidence.states.release()
        if isinstance(plan, PatternPlan | BlockPlan) and plan.options.tier == "trained":
            repaired = self._trained(repaired, plan, target)
        if isinstance(plan, BlockPlan) and self.spec.artifacts.layout == "per_layer":
            student = repaired.student
            mask = remove_dead_(adapt(student), _allowance(student, plan))
            repaired = replace(repaired, repair=replace(repaired.repair, mask=mask))
        return repaired

    def _is_last(self, target: Target) -> bool:
        """Whether no other repair can follow: of another budget, or of a latency or a floor that is missed."""
        return self.spec.all_targets == (target,) and target.metric != "latency"

    def _repaired(self, plan: Plan) -> Repaired:
        student, evidence, recovery = clone(self.ctx.task_model.model), self.ctx.evidence, self.spec.recovery
        with self.ctx.clock.stage("recover", len(self.ctx.groups)) as step:
            if isinstance(plan, Mask):
                sublayers = prune_and_recover_(adapt(student), plan, evidence, recovery, on_sublayer=step)
                return Repaired(student, Repair(plan, sublayers))
            rule = plan.projections if isinstance(plan, BlockPlan) else plan.projection
            fits = sparsify_(adapt(student), rule, evidence, plan.options, recovery, on_sublayer=step)
        mask = Mask.full([group.size for group in self.ctx.groups])
        return Repaired(student, Repair(mask, sublayer_reports(fits, evidence.dense), fits))

    def _trained(self, repaired: Repaired, plan: PatternPlan | BlockPlan, target: Target) -> Repaired:
        """Train a student, from where the one-shot tier has left it or from the dense weights."""
        options = plan.options.training
        student = repaired.student if options.start == "one-shot" else clone(self.ctx.task_model.model)
        training = self.trainer.train_(student, plan.recipe, options, name=target_name(target))
        return Repaired(student, replace(repaired.repair, training=training))

    def _recounted(
        self, target: Target, plan: Plan, repair: Repair, folder: Path, *, quality: QualityReport, latency: LatencyReport
    ) -> Outcome:
        """Count what was written, and put it beside what was measured."""
        evidence = self.ctx.evidence
        length = evidence.calibration.mean_length
        counted = measure_outcome(
            target,
            folder,
            source=self.ctx.task_model,
            dense=evidence.dense,
            length=length,
            mask=repair.mask,
            sublayers=repair.sublayers,
            quality=quality,
            latency=latency,
        )
        if isinstance(plan, PatternPlan):
            return with_pattern(counted, plan, repair.fits, folder, evidence.dense, length=length)
        if isinstance(plan, BlockPlan):
            return with_segments(counted, plan, repair.fits, folder, evidence.dense, mask=repair.mask, length=length)
        return counted

    def _products(self, pruned: TaskModel, latency: LatencyReport) -> ProductsReport:
        return measure_products(pruned.model, latency, pruned.stored_dtype, generator(self.spec.seed, "products"))

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
        """Write the compressed form, and say what became of the matrices; a sentence where there is none."""
        if "compressed" not in self.spec.artifacts.formats:
            return None
        if self.ctx.task_model.pages is not None:
            return _TOO_LARGE
        matrices = adapt(student).linears
        pattern = plan.block if isinstance(plan, PatternPlan) else None
        arranged = {name: plan.blocks[name] if isinstance(plan, BlockPlan) else pattern for name in matrices}
        # What is stored input-major is indexed bit by bit.
        hints = {name: None if is_transposed(matrices[name]) else hint for name, hint in arranged.items()}
        try:
            return write_compressed_form(folder, self.ctx.task_model, student, hints)
        except NothingToCompress as problem:
            return str(problem)

    def _floor(self, quality: QualityReport) -> FloorReport | None:
        floor = self.spec.quality_floor
        if floor is None:
            return None
        lower = quality.lower_is_better
        return FloorReport(
            kind=floor.kind,
            requested=floor.value,
            required=floor.required(quality.dense, lower_is_better=lower),
            achieved=quality.pruned,
            lower_is_better=lower,
        )


# Share of the target's tolerance that weights beside zeros may take when dead units go; rounding may zero a few more.
_ROOM = 0.5


def _allowance(student: PreTrainedModel, plan: BlockPlan) -> int:
    """Give the weights other than zero that may be removed with dead units."""
    everything = zeros = 0
    for _, linear in adapt(student).held_linears():
        everything += linear.weight.numel()
        zeros += linear.weight.numel() - int(linear.weight.count_nonzero())
    return max(0, int((plan.sparsity + _ROOM * plan.tolerance) * everything) - zeros)
