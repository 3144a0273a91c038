"""``make bench-frontier``: the time of a job with eight budgets, compared with that of a job with one.

Prints a table and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED, shared_model
from pruning_core.report.progress import Stage
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec

KEEPS = (0.5, 0.7, 0.6, 0.4, 0.35, 0.3, 0.25, 0.2)
PRUNING: tuple[Stage, ...] = ("calibrate", "score", "profile", "search", "rearrange", "recover", "materialise")


def prune(shared: Path, task: str, keeps: Sequence[float]) -> Report:
    targets = [{"metric": "macs", "keep": keep} for keep in keeps]
    spec = {
        "model": str(shared_model(shared, task)),
        "task": f"glue/{task}",
        "data": str(shared / "data" / "glue" / task),
        **({"targets": targets} if len(targets) > 1 else {"target": targets[0]}),
    }
    with tempfile.TemporaryDirectory() as folder:
        return run(PruneSpec.model_validate(spec), Path(folder) / "bundle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--task", default="stsb")
    options = parser.parse_args()
    prune(options.shared, options.task, KEEPS[:1])  # warm caches
    one = prune(options.shared, options.task, KEEPS[:1])
    eight = prune(options.shared, options.task, KEEPS)
    pruning = [sum(report.seconds.by_stage[stage] for stage in PRUNING) for report in (one, eight)]
    table = Table(title=f"minilm-{options.task}, eight budgets in one job")
    for heading in ("MACs kept", "achieved", one.quality.metric, "speed-up"):
        table.add_column(heading, justify="right")
    for point in sorted(eight.frontier, key=lambda point: -point.target.requested):
        table.add_row(
            f"{point.target.requested:g}",
            f"{point.target.achieved:.4f}",
            f"{point.quality.pruned:.4f}",
            f"{point.latency_ms.speedup:.2f}x",
        )
    console = Console()
    console.print(table)
    console.print(f"whole job: one budget {one.seconds.total:.1f} s, eight {eight.seconds.total:.1f} s, ", end="")
    console.print(f"{eight.seconds.total / one.seconds.total:.2f} x")
    console.print(f"pruning alone: {pruning[0]:.1f} s, {pruning[1]:.1f} s, {pruning[1] / pruning[0]:.2f} x")
    result = {
        "one_seconds": one.seconds.model_dump(),
        "eight_seconds": eight.seconds.model_dump(),
        "ratio": eight.seconds.total / one.seconds.total,
        "pruning_ratio": pruning[1] / pruning[0],
        "frontier": [
            {"keep": p.target.requested, "quality": p.quality.pruned, "speedup": p.latency_ms.speedup} for p in eight.frontier
        ],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
