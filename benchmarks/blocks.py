"""``make bench-blocks``: the quality that block sparsity keeps, one shot and trained, on ``../shared``.

For each task, sparsity and seed, every way prunes the same model on the same calibration samples, with the same blocks. The
ways are: segments kept by their norms alone, with and without our refit; one sparsity for every matrix, as in the sketch of the
issue; the one-shot tier; the trained tier from the one-shot tier's weights; the trained tier by the group Lasso from dense
weights; the training of the paper (decision 126); and the same training of the segments that magnitude keeps. Quality is the
pruned model's score on the whole validation split, as a share of the dense model's. Prints a table and, as the last line of
stdout, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED, shared_model
from benchmarks.ways import paper_training
from pruning_core.arch.adapter import adapt, clone
from pruning_core.data.read import read_rows
from pruning_core.data.rows import Rows
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context, Evidence
from pruning_core.evidence.gathering import gather_evidence
from pruning_core.measure.quality import Evaluator
from pruning_core.methods.block_lasso.plan import BlockPlanner
from pruning_core.models.load import load_task_model
from pruning_core.recovery.sparsify import sparsify_
from pruning_core.spec.method import BlockLasso
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.tasks.base import TaskModel
from pruning_core.training.runner import TrainingRunner

_NORMS = {"selection": "magnitude"}

# Each way: the method's options, the kind of recovery, and the options of the training (None: not trained).
ONE_SHOT: dict[str, tuple[dict[str, Any], str, dict[str, Any] | None]] = {
    "magnitude": (_NORMS, "none", None),
    "magnitude, refit": (_NORMS, "weights", None),
    "uniform": ({"threshold": "uniform"}, "weights", None),
    "one-shot": ({}, "weights", None),
}
TRAINED: dict[str, tuple[dict[str, Any], str, dict[str, Any] | None]] = {
    "magnitude, trained": (_NORMS, "none", {"start": "one-shot"}),
    "lasso, trained": ({}, "weights", {"start": "dense"}),
    "paper": ({}, "weights", paper_training("block-lasso")),
    "one-shot, trained": ({}, "weights", {"start": "one-shot"}),
}
WAYS = ONE_SHOT | TRAINED
SPARSITIES = {"2x": 0.5, "3x": 2 / 3, "5x": 0.8}
GOALS = {"2x": 0.985, "3x": 0.96, "5x": 0.90}
ONE_SHOT_GOAL = ("stsb", "2x", 0.938)


@dataclass(frozen=True, slots=True)
class Case:
    """A model with its task, one draw of calibration samples, and the dense model's hidden states on them."""

    spec: PruneSpec
    dense: TaskModel
    rows: Rows
    evaluator: Evaluator
    evidence: Evidence

    @classmethod
    def of(cls, task: str, seed: int, options: argparse.Namespace) -> Case:
        """Load the model, and draw and tokenise the samples, as a run does."""
        folder, device = shared_model(options.shared, task), torch.device(options.device)
        spec = PruneSpec.model_validate(
            {
                "model": str(folder),
                "task": f"glue/{task}",
                "data": str(options.shared / "data" / "glue" / task),
                "method": {"name": "block-lasso", "block": options.block, "segment": options.segment},
                "calibration": {"samples": options.samples},
                "sparsity": 0.5,
                "seed": seed,
            }
        )
        dense = load_task_model(folder, spec.task.type, device)
        rows = read_rows(spec.task, "train")
        evidence = gather_evidence(spec, dense, rows, None, StageClock(lambda _progress: None))
        return cls(spec, dense, rows, Evaluator(spec, dense, read_rows(spec.task, "validation")), evidence)

    def prune(self, way: str, sparsity: float, training: dict[str, Any]) -> tuple[float, float, float]:
        """Prune a copy of the model one way. Return the share of the dense score, the share of zeros, and the seconds."""
        began = time.perf_counter()
        changes, kind, trained = WAYS[way]
        assert isinstance(self.spec.method, BlockLasso)
        chosen = self.spec.method.model_dump() | changes
        if trained is not None:
            chosen |= {"tier": "trained", "training": trained | training}
        spec = self.spec.model_copy(update={"method": BlockLasso.model_validate(chosen)})
        ctx = Context(self.dense, self.evidence, StageClock(lambda _progress: None), spec.seed)
        (target,) = spec.all_targets
        plan = next(BlockPlanner(spec.method, ctx).plans(target.model_copy(update={"sparsity": sparsity})))
        student = clone(self.dense.model)
        if trained is None or trained["start"] == "one-shot":
            recovery = RecoverySpec(kind=kind)
            sparsify_(adapt(student), plan.projections, self.evidence, plan.options, recovery, on_sublayer=lambda _done: None)
        if plan.training is not None:
            TrainingRunner(spec, ctx, self.rows, None).train_(student, plan.training.recipe, plan.training.options, name=way)
        quality = self.evaluator.compare(self.dense.with_model(student), lambda _step: None)
        weights = [sublayer.output.weight for sublayer in adapt(student).sublayers]
        weights += [linear.weight for sublayer in adapt(student).sublayers for linear in sublayer.inputs]
        zeros = sum(int((own == 0).sum()) for own in weights) / sum(own.numel() for own in weights)
        return quality.pruned / quality.dense, zeros, time.perf_counter() - began


def measure(task: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    training: dict[str, Any] = {"epochs": options.epochs, "max_train_rows": options.rows}
    ways = [way for way in options.ways if way in WAYS]
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for seed in options.seeds:
        case = Case.of(task, seed, options)
        for way in ways:
            found[way].append(case.prune(way, SPARSITIES[name], training))
            print(task, name, seed, way, *(f"{value:.4f}" for value in found[way][-1]), flush=True)
    return {
        "task": task,
        "compression": name,
        "sparsity": SPARSITIES[name],
        "seeds": options.seeds,
        "kept": {way: [kept for kept, _, _ in values] for way, values in found.items()},
        "kept_mean": {way: statistics.mean(kept for kept, _, _ in values) for way, values in found.items()},
        "zeros": {way: [zeros for _, zeros, _ in values] for way, values in found.items()},
        "seconds": {way: statistics.mean(seconds for _, _, seconds in values) for way, values in found.items()},
        "goal": GOALS[name],
    }


def show(rows: list[dict[str, Any]], options: argparse.Namespace, console: Console) -> None:
    table = Table(
        title=f"Share of the dense score, mean of seeds {options.seeds}, {options.samples} samples, {options.segment}s of "
        f"{options.block}; trained: {options.epochs} epochs of {options.rows or 'all'} rows"
    )
    for heading in ("task", "compression", *options.ways, "goal, trained"):
        table.add_column(heading, justify="right")
    for row in rows:
        kept = (f"{row['kept_mean'][way]:.2%}" for way in options.ways)
        table.add_row(row["task"], row["compression"], *kept, f"{row['goal']:.1%}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--tasks", nargs="+", default=["stsb", "sst2"])
    parser.add_argument("--compressions", nargs="+", default=list(SPARSITIES), choices=list(SPARSITIES))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--block", default="16x16")
    parser.add_argument("--segment", default="row")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=2048, help="training rows, drawn with the seed; 0: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    options.rows = options.rows or None
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = [measure(task, name, options) for task in options.tasks for name in options.compressions]
    show(rows, options, Console(width=160))
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
