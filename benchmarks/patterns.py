"""``make bench-patterns``: the quality that sparsity patterns keep, and the time to choose them, on ``../shared``.

For each task, pattern and seed, every way prunes the same model on the same calibration samples: magnitude, Wanda and SparseGPT
as published (no refit), the masks of the first two with our refit, and ADMM. Quality is the pruned model's score on the whole
validation split, as a share of the dense model's. The second table counts, for each peer, the matrices that ADMM leaves with a
smaller residual. ADMM and peers are fitted to the same statistics of all calibration samples: those that ADMM meets on its way
through the layers. Time is ADMM's, from the texts to the pruned model, compared with one forward and one activation-backward
pass of the dense model over the same tokens in the same precision. The two are timed in turns, and the best round counts.
Prints tables and, as the last line of stdout, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import trained
from benchmarks.models import SHARED, shared_model
from benchmarks.prune import floor
from pruning_core.arch.adapter import adapt, clone
from pruning_core.data.read import read_rows
from pruning_core.data.rows import Rows
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context, Evidence
from pruning_core.evidence.gathering import gather_evidence
from pruning_core.measure.quality import Evaluator
from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.methods.admm_pattern.plan import PatternPlan, PatternPlanner
from pruning_core.models.load import load_task_model
from pruning_core.patterns.project import Projection
from pruning_core.recovery.matrix_fit import Matrix, fit_matrix
from pruning_core.recovery.sparsify import sparsify_
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.tasks.base import TaskModel

# Each way: how the support is selected, and the kind of recovery.
WAYS = {
    "magnitude": ("magnitude", "none"),
    "Wanda": ("wanda", "none"),
    "SparseGPT": ("sparsegpt", "none"),
    "magnitude, refit": ("magnitude", "weights"),
    "Wanda, refit": ("wanda", "weights"),
    "ADMM, refit": ("admm", "weights"),
}
PEERS = ("magnitude", "Wanda", "SparseGPT", "Wanda, refit")


@dataclass(frozen=True, slots=True)
class Goal:
    """A pattern, with a sparsity if it is unstructured, and the share of the dense score that ADMM should keep."""

    task: str
    pattern: str
    sparsity: float | None
    kept: float | None

    @property
    def name(self) -> str:
        """Name of the pattern in the tables."""
        return self.pattern if self.sparsity is None else f"{self.pattern} {self.sparsity:g}"


GOALS = (
    Goal("stsb", "2:4", None, 0.997),
    Goal("sst2", "2:4", None, 0.992),
    Goal("stsb", "4:8", None, None),
    Goal("stsb", "4x4:8", None, None),
    Goal("stsb", "unstructured", 0.7, 0.98),
    Goal("stsb", "unstructured", 0.8, 0.94),
)


class Case:
    """A model with its task and one draw of calibration samples."""

    def __init__(self, shared: Path, goal: Goal, *, seed: int, samples: int, precision: str, device: torch.device) -> None:
        folder = shared_model(shared, goal.task)
        method = {"name": "admm-pattern", "pattern": goal.pattern}
        self.spec = PruneSpec.model_validate(
            {
                "model": str(folder),
                "task": f"glue/{goal.task}",
                "data": str(shared / "data" / "glue" / goal.task),
                "method": method,
                "calibration": {"samples": samples, "precision": precision},
                "seed": seed,
            }
            | ({} if goal.sparsity is None else {"sparsity": goal.sparsity})
        )
        self.dense = load_task_model(folder, self.spec.task.type, device)
        self.rows: Rows = read_rows(self.spec.task, "train")
        self.evaluator = Evaluator(self.spec, self.dense, read_rows(self.spec.task, "validation"))

    def evidence(self) -> Evidence:
        """Draw and tokenise the calibration samples, as a run does."""
        return gather_evidence(self.spec, self.dense, self.rows, None, StageClock(lambda _progress: None))

    def plan(self, evidence: Evidence) -> PatternPlan:
        """Return the method's plan for the target, made from the evidence."""
        method, (target,) = self.spec.method, self.spec.all_targets
        assert isinstance(method, AdmmPattern)
        ctx = Context(self.dense, evidence, StageClock(lambda _progress: None), self.spec.seed)
        return next(PatternPlanner(method, ctx).plans(target))

    def prune(
        self, evidence: Evidence, plan: PatternPlan, way: str, on_matrix: Callable[[Matrix], None] = lambda _matrix: None
    ) -> TaskModel:
        """Prune a copy of the model one way."""
        selection, kind = WAYS[way]
        student = self.dense.with_model(clone(self.dense.model))
        sparsify_(
            adapt(student.model),
            plan.projection,
            evidence,
            plan.options.model_copy(update={"selection": selection}),
            RecoverySpec(kind=kind),
            on_sublayer=lambda _done: None,
            on_matrix=on_matrix,
        )
        return student

    def seconds(self) -> float:
        """Return the seconds of pruning, without loading the model."""
        began = time.perf_counter()
        evidence = self.evidence()
        self.prune(evidence, self.plan(evidence), "ADMM, refit")
        return time.perf_counter() - began


class Peers:
    """Residuals of ADMM and of every peer on the matrices and statistics that ADMM meets."""

    def __init__(self, projection: Projection, options: AdmmPattern) -> None:
        self._projection, self._options = projection, options
        self.residuals: dict[str, list[float]] = {way: [] for way in (*PEERS, "ADMM, refit")}

    def look(self, matrix: Matrix) -> None:
        """Fit one matrix every way, and keep the residuals."""
        everything = matrix.fit + matrix.judge
        for way, found in self.residuals.items():
            selection, kind = WAYS[way]
            options = self._options.model_copy(update={"selection": selection})
            weights, bias, _ = fit_matrix(matrix, self._projection, options, refit=kind == "weights")
            last = torch.zeros_like(weights[0]) if bias is None else bias.to(weights)
            found.append(everything.relative_residual(torch.cat([weights, last[None, :]])))

    def beaten(self) -> dict[str, int]:
        """Count, for each peer, the matrices that ADMM leaves with a smaller residual."""
        ours = self.residuals["ADMM, refit"]
        return {way: sum(a < b for a, b in zip(ours, self.residuals[way], strict=True)) for way in PEERS}


def measure(shared: Path, goal: Goal, options: argparse.Namespace) -> dict[str, object]:
    kept: dict[str, list[float]] = {way: [] for way in WAYS}
    beaten: dict[str, int] = dict.fromkeys(PEERS, 0)
    matrices, metric, dense = 0, "", 0.0
    for seed in options.seeds:
        case = Case(
            shared, goal, seed=seed, samples=options.samples, precision=options.precision, device=torch.device(options.device)
        )
        evidence = case.evidence()
        plan = case.plan(evidence)
        peers = Peers(plan.projection, plan.options)
        for way in WAYS:
            look = peers.look if way == "ADMM, refit" and options.layers else lambda _matrix: None
            quality = case.evaluator.compare(case.prune(evidence, plan, way, look), lambda _step: None)
            kept[way].append(quality.pruned / quality.dense)
            metric, dense = quality.metric, quality.dense
        for way, count in peers.beaten().items():
            beaten[way] += count
        matrices += len(peers.residuals["ADMM, refit"])
    mean = statistics.mean(kept["ADMM, refit"])
    return {
        "task": goal.task,
        "pattern": goal.name,
        "metric": metric,
        "dense": dense,
        "goal": goal.kept,
        "reached": None if goal.kept is None else mean >= goal.kept,
        "seeds": options.seeds,
        "kept": kept,
        "kept_mean": {way: statistics.mean(values) for way, values in kept.items()},
        "matrices": matrices,
        "matrices_better_than": beaten,
    }


def measure_time(shared: Path, task: str, options: argparse.Namespace, precision: str) -> dict[str, object]:
    goal = Goal(task, "2:4", None, None)
    case = Case(shared, goal, seed=0, samples=options.samples, precision=precision, device=torch.device(options.device))
    evidence = case.evidence()
    floor(case.dense, evidence)
    floors, ours = [], []
    for _ in range(options.rounds):
        floors.append(floor(case.dense, evidence))
        ours.append(case.seconds())
    return {
        "task": task,
        "tokens": evidence.calibration.tokens,
        "dtype": str(evidence.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "forward_backward_seconds": min(floors),
        "seconds": min(ours),
        "ratio": min(ours) / min(floors),
    }


def show(rows: list[dict[str, object]], times: list[dict[str, object]], options: argparse.Namespace, console: Console) -> None:
    table = Table(
        title=f"Share of the dense score, mean of seeds {options.seeds}, {options.samples} calibration samples, no labels"
    )
    for heading in ("task", "pattern", *WAYS, "goal"):
        table.add_column(heading, justify="right")
    for row in rows:
        goal = "" if row["goal"] is None else f"{row['goal']:.1%} {'reached' if row['reached'] else 'MISSED'}"
        table.add_row(row["task"], row["pattern"], *(f"{row['kept_mean'][way]:.2%}" for way in WAYS), goal)
    console.print(table)
    if options.layers:
        layers = Table(title="Matrices whose residual ADMM leaves smaller")
        for heading in ("task", "pattern", *(f"than {way}" for way in PEERS), "of"):
            layers.add_column(heading, justify="right")
        for row in rows:
            counts = (str(row["matrices_better_than"][way]) for way in PEERS)
            layers.add_row(row["task"], row["pattern"], *counts, str(row["matrices"]))
        console.print(layers)
    for row in times:
        console.print(
            f"{row['task']}, 2:4, {row['tokens']} tokens, {row['dtype']}, {row['threads']} threads: {row['seconds']:.1f} s, "
            f"{row['ratio']:.2f} x one forward + backward ({row['forward_backward_seconds']:.2f} s)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--goals", nargs="*", type=int, default=None, help="rows of the table, from 0")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing; 0 leaves it out")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--layers", action=argparse.BooleanOptionalAction, default=True, help="compare residuals by matrix")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--trained", action="store_true", help="the trained tier instead: see benchmarks.trained")
    parser.add_argument("--ways", nargs="*", choices=list(trained.WAYS), default=None, help="of training; all of them")
    parser.add_argument("--epochs", type=int, default=None, help="of training")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.trained:
        trained.run(options)
        return
    chosen = range(len(GOALS)) if options.goals is None else options.goals
    rows = [measure(options.shared, GOALS[index], options) for index in chosen]
    times = [
        measure_time(options.shared, task, options, precision)
        for task in ("stsb", "sst2")
        for precision in ("float32", "auto")
        if options.rounds
    ]
    show(rows, times, options, Console(width=160))
    print(json.dumps({"rows": rows, "times": times}))


if __name__ == "__main__":
    main()
