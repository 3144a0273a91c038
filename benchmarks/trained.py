"""``make bench-patterns PATTERNS_ARGS=--trained``: the quality that each way of training gains under a pattern.

Every way trains for the same steps on the same rows in the same order, with the method's default options except for those in
its name. ``one-shot`` starts from the weights of the one-shot tier, ``dense`` from the dense weights. The last row is a
control: the dense model with the same training and without pruning. Whatever it gains above 100 % comes from training on
labels alone. SST-2 is subsampled: 4000 of its 67349 rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.ways import paper_training
from pruning_core.arch.adapter import clone
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context
from pruning_core.methods.admm_pattern.recipe import PatternRecipe
from pruning_core.spec.training import PatternTraining
from pruning_core.training.constraint import Constraint, Unconstrained, Weights
from pruning_core.training.recipe import Recipe
from pruning_core.training.runner import TrainingRunner

if TYPE_CHECKING:
    from benchmarks.patterns import Case, Goal

TRAINED_GOALS = (("stsb", "2:4"), ("sst2", "2:4"), ("stsb", "4x4:8"), ("sst2", "4x4:8"))
KEPT = 0.998
ROWS = {"stsb": None, "sst2": 4000}
# The options of the training that each way changes; None: not trained.
WAYS: dict[str, dict[str, object] | None] = {
    "one-shot, not trained": None,
    "one-shot, ADMM": {},
    "one-shot, fixed": {"admm": 0},
    "one-shot, SR-STE": {"admm": 0, "finish": "sr-ste"},
    "dense, ADMM": {"start": "dense"},
    "dense, ADMM coupled": {"start": "dense", "penalty": "coupled"},
    "dense, hard prune": {"start": "dense", "admm": 0},
    "dense, SR-STE": {"start": "dense", "admm": 0, "finish": "sr-ste"},
    "paper": paper_training("admm-pattern"),
    "not pruned": {"start": "dense"},
}
DEFAULT = "one-shot, ADMM"


@dataclass(frozen=True, slots=True)
class Control:
    """A recipe without any constraint."""

    def constraint(self, weights: Weights) -> Constraint:
        """Return a constraint that leaves the weights free."""
        return Unconstrained(weights)


def measure(case: Case, goal: Goal, ways: list[str], options: argparse.Namespace) -> list[dict[str, object]]:
    """Train every way from the same draw of calibration samples."""
    evidence = case.evidence()
    plan = case.plan(evidence)
    start = case.prune(evidence, plan, "ADMM, refit").model
    ctx = Context(case.dense, evidence, StageClock(lambda _progress: None), case.spec.seed)
    trainer = TrainingRunner(case.spec, ctx, case.rows, None)
    found: list[dict[str, object]] = []
    for way in ways:
        changes = WAYS[way]
        began, training = time.perf_counter(), None
        student = clone(start if way.startswith("one-shot") else case.dense.model)
        if changes is not None:
            epochs = {} if options.epochs is None else {"epochs": options.epochs}
            chosen = PatternTraining.model_validate({"max_train_rows": ROWS[goal.task], **epochs, **changes})
            recipe: Recipe = Control() if way == "not pruned" else PatternRecipe(plan.projection, chosen)
            training = trainer.train_(student, recipe, chosen, name="benchmark")
        quality = case.evaluator.compare(case.dense.with_model(student), lambda _step: None)
        row = {
            "task": goal.task,
            "pattern": goal.pattern,
            "seed": case.spec.seed,
            "way": way,
            "kept": quality.pruned / quality.dense,
            "seconds": time.perf_counter() - began,
            "steps": 0 if training is None else training.steps,
            "best_step": 0 if training is None else training.best_step,
            "rows": 0 if training is None else training.rows,
            "ending": None if training is None else training.ending,
        }
        print(json.dumps(row), file=sys.stderr, flush=True)
        found.append(row)
    return found


def run(options: argparse.Namespace) -> None:
    """Train for all goals, seeds and ways, and print the table."""
    from benchmarks.patterns import Case, Goal

    rows: list[dict[str, object]] = []
    ways = options.ways or list(WAYS)
    for index in options.goals or range(len(TRAINED_GOALS)):
        goal = Goal(*TRAINED_GOALS[index], None, KEPT)
        for seed in options.seeds:
            device = torch.device(options.device)
            case = Case(
                Path(options.shared), goal, seed=seed, samples=options.samples, precision=options.precision, device=device
            )
            rows += measure(case, goal, ways, options)
    show(rows, ways, options, Console(width=160))
    print(json.dumps({"trained": rows}))


def show(rows: list[dict[str, object]], ways: list[str], options: argparse.Namespace, console: Console) -> None:
    """Print the shares of the dense score, as means over the seeds."""
    table = Table(title=f"Share of the dense score after training, mean of seeds {options.seeds} (each in brackets)")
    kinds = list(dict.fromkeys((str(row["task"]), str(row["pattern"])) for row in rows))
    for heading in ("start, way", *(f"{task} {pattern}" for task, pattern in kinds)):
        table.add_column(heading, justify="right")
    for way in ways:
        cells: list[str] = []
        for kind in kinds:
            kept = [float(str(row["kept"])) for row in rows if (row["task"], row["pattern"]) == kind and row["way"] == way]
            mean = statistics.mean(kept)
            verdict = "" if way != DEFAULT else " reached" if mean >= KEPT else " MISSED"
            cells.append(f"{mean:.2%} ({' '.join(f'{100 * one:.2f}' for one in kept)}){verdict}")
        table.add_row(way, *cells)
    console.print(table)
