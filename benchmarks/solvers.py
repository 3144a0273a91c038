"""``make bench-solvers``: CG, PCG, Cholesky and LSMR on the real least-squares problems of the shared models.

The problems are those of every sublayer of both models at half of the MACs. As in recovery, each sublayer is repaired before
the statistics of the next are taken. A sublayer (heads or neurons) has two problems: one scale for each unit, and all weights.
Each solver's iterations, residual, time and distance from the dense float64 solve are measured on each problem. Prints a table
and, as the last line of stdout, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED
from benchmarks.prune import Case
from pruning_core.arch.adapter import adapt, clone
from pruning_core.budgets import budget_for
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context
from pruning_core.machine.precision import products_in
from pruning_core.methods.fisher_cg.options import FisherCG
from pruning_core.methods.fisher_cg.scores import FisherCGMethod
from pruning_core.recovery.solve import NormalEquations, SolverName, masks_system, repair_, solve_system, weights_system
from pruning_core.recovery.streams import Streams
from pruning_core.spec.prune import RecoverySpec
from pruning_core.spec.targets import KeepTarget

Key = tuple[str, str, str]


def problems(case: Case) -> list[tuple[str, str, NormalEquations]]:
    """Walk through the layers and return the two problems of every sublayer: (units, kind, system)."""
    evidence = case.evidence()
    ctx = Context(case.model, evidence, StageClock(lambda _progress: None), 0)
    method = FisherCGMethod(FisherCG())
    budget = budget_for(
        KeepTarget(metric="macs", keep=0.5),
        ctx.groups,
        total_params=case.model.parameter_count(),
        length=evidence.calibration.mean_length,
    )
    mask = method.plan(method.prepare(ctx), budget, ctx)
    student = adapt(clone(case.model.model))
    found: list[tuple[str, str, NormalEquations]] = []
    with torch.no_grad(), products_in(evidence.dtype, case.model.device), evidence.states.cache() as cache:
        streams = Streams(evidence, cache, samples=case.samples, first_judge=case.samples - case.samples // 8)
        for index, (dense, pruned) in enumerate(zip(evidence.dense.sublayers, student.sublayers, strict=True)):
            pruned.slice_(mask.indices(index))
            fit, judge = streams.gather(index, dense, pruned, dense.layer)
            before = torch.cat([pruned.output.weight.T, pruned.output.bias[None, :]]).double()
            units = f"{ctx.groups[index].kind}s"
            found.append((units, "scalar", masks_system(fit, before, pruned.unit_width)))
            found.append((units, "weights", weights_system(fit, before, RecoverySpec().damping)))
            with products_in(torch.float32, case.model.device):
                repair_(pruned, fit, judge, RecoverySpec())
            streams.advance(pruned, dense.layer)
    return found


def measure(cases: list[Case], rounds: int) -> list[dict[str, object]]:
    seconds: dict[Key, list[float]] = defaultdict(list)
    runs: dict[Key, list[tuple[int, float, float, str]]] = defaultdict(list)
    for case in cases:
        for units, kind, system in problems(case):
            spec = RecoverySpec(kind="masks" if kind == "scalar" else "weights")
            exact = torch.linalg.solve(system.A, system.rhs)
            for solver in get_args(SolverName):
                times = []
                for _ in range(rounds):
                    began = time.perf_counter()
                    solution = solve_system(solver, system, spec)
                    times.append(time.perf_counter() - began)
                residual = float((system.rhs - system.A @ solution.value).norm() / system.rhs.norm())
                error = float((solution.value - exact).norm() / exact.norm())
                key = (units, kind, solver)
                seconds[key].append(min(times))
                runs[key].append((solution.iterations, residual, error, solution.status))
    return [
        {
            "units": units,
            "kind": kind,
            "solver": solver,
            "problems": len(found),
            "iterations_median": statistics.median(run[0] for run in found),
            "iterations_max": max(run[0] for run in found),
            "residual_worst": max(run[1] for run in found),
            "error_worst": max(run[2] for run in found),
            "converged": sum(run[3] == "converged" for run in found),
            "milliseconds": 1e3 * statistics.mean(seconds[units, kind, solver]),
        }
        for (units, kind, solver), found in runs.items()
    ]


def show(rows: list[dict[str, object]], tolerance: float) -> None:
    table = Table(title=f"Solvers on the Grams of the shared models at half the MACs; iterations stop at {tolerance:g}")
    for heading in ("units", "solve for", "solver", "problems", "iterations", "max", "residual", "error", "converged", "ms"):
        table.add_column(heading, justify="right")
    for row in sorted(rows, key=lambda row: (row["units"], row["kind"])):
        table.add_row(
            row["units"],
            row["kind"],
            row["solver"],
            str(row["problems"]),
            f"{row['iterations_median']:g}",
            str(row["iterations_max"]),
            f"{row['residual_worst']:.1e}",
            f"{row['error_worst']:.1e}",
            f"{row['converged']}/{row['problems']}",
            f"{row['milliseconds']:.2f}",
        )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = [
        Case.of_shared(options.shared, task, samples=options.samples, precision="auto", device=device)
        for task in ("sst2", "stsb")
    ]
    rows = measure(cases, options.rounds)
    show(rows, RecoverySpec().tolerance)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
