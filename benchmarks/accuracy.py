"""``make bench-accuracy``: the quality that the defaults keep, over budgets and seeds, on the models and data of ``../shared``.

Defaults were chosen on these two sets (decisions 5, 7, 14): `benchmarks.headlines` has others. The papers' own settings stand
beside them (decision 126); ``--ways`` adds baselines, as they come and with the same repair. Prints a table of means over the
seeds and, as the last line of stdout, one JSON object with every run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.ways import DEFAULT, PAPER, WAYS
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec

SHARED = Path(__file__).resolve().parents[2] / "shared"


def prune(shared: Path, task: str, keep: float, seed: int, samples: int, way: str) -> Report:
    spec = PruneSpec.model_validate(
        {
            "model": str(shared / "models" / f"minilm-{task}"),
            "task": f"glue/{task}",
            "data": str(shared / "data" / "glue" / task),
            "target": {"metric": "macs", "keep": keep},
            "calibration": {"samples": samples},
            "seed": seed,
            **WAYS[way],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        return run(spec, Path(folder) / "bundle")


def row_of(task: str, keep: float, way: str, reports: list[Report]) -> dict[str, object]:
    pruned = [report.quality.pruned for report in reports]
    differences = [report.quality.difference for report in reports]
    pruning = ("calibrate", "score", "search", "rearrange", "recover", "materialise")
    return {
        "task": task,
        "macs_keep": keep,
        "way": way,
        "metric": reports[0].quality.metric,
        "dense": reports[0].quality.dense,
        "pruned_mean": statistics.mean(pruned),
        "pruned": pruned,
        "differences": [difference and difference.model_dump(mode="json") for difference in differences],
        "seeds": [report.seed for report in reports],
        "speedup": statistics.median(report.latency_ms.speedup for report in reports),
        "pruning_seconds": statistics.median(sum(r.seconds.by_stage[stage] for stage in pruning) for r in reports),
        "achieved": [report.target.achieved for report in reports],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--tasks", nargs="+", default=["stsb", "sst2"])
    parser.add_argument("--keep", nargs="+", type=float, default=[0.5, 0.3, 0.2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--ways", nargs="+", default=[DEFAULT, PAPER], choices=list(WAYS))
    options = parser.parse_args()
    if not (options.shared / "models").is_dir():
        sys.exit(f"no models under {options.shared}; give --shared a folder with models/ and data/")
    console = Console(stderr=True)
    cells = [(task, keep, way) for task in options.tasks for keep in options.keep for way in options.ways]
    rows = []
    for task, keep, way in track(cells, description="pruning", console=console, disable=not console.is_terminal):
        reports = [prune(options.shared, task, keep, seed, options.samples, way) for seed in options.seeds]
        rows.append(row_of(task, keep, way, reports))
    table = Table(title=f"Quality kept, mean over seeds {options.seeds}, {options.samples} calibration samples")
    for heading in ("task", "MACs kept", "way", "metric", "dense", "pruned", "worst", "best", "speed-up", "pruning s"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["task"],
            f"{row['macs_keep']:g}",
            row["way"],
            row["metric"],
            f"{row['dense']:.4f}",
            f"{row['pruned_mean']:.4f}",
            f"{min(row['pruned']):.4f}",
            f"{max(row['pruned']):.4f}",
            f"{row['speedup']:.2f}x",
            f"{row['pruning_seconds']:.1f}",
        )
    Console().print(table)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
