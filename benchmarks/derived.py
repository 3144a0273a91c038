"""``make bench-statistics``: what a second target costs, where the first has kept what it found out about the dense model.

Each round runs a first target with an empty folder, a second one with what the first has kept, and the second alone; the
weights of both seconds must be the same bytes. Prints a table and, last, one JSON object. For several targets of one run see
``make bench-frontier``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED, shared_model
from pruning_core.kept.folder import KeptFolder
from pruning_core.report.progress import Stage
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec

FIRST, SECOND = 0.5, 0.4
PRUNING: tuple[Stage, ...] = ("calibrate", "score", "profile", "search", "rearrange", "recover")


def request(options: argparse.Namespace) -> dict[str, Any]:
    """Return the spec without a target."""
    if options.model is None:
        shared: Path = options.shared
        return {
            "model": str(shared_model(shared, options.task)),
            "task": f"glue/{options.task}",
            "data": str(shared / "data" / "glue" / options.task),
        }
    task = {"type": options.type, "dataset": str(options.data), "metric": options.metric, "columns": {"text": ["text"]}}
    return {
        "model": str(options.model),
        "task": task,
        "calibration": {"samples": options.samples, "max_length": options.length},
        "evaluation": {"max_length": options.length},
    }


def prune(spec: dict[str, Any], keep: float, folder: Path, kept: Path | None) -> Report:
    """Run one job into a folder."""
    whole = PruneSpec.model_validate(spec | {"target": {"metric": "macs", "keep": keep}})
    return run(whole, folder, statistics=None if kept is None else KeptFolder(kept))


def seconds_of(report: Report, stages: Sequence[Stage] | None = None) -> float:
    """Return the seconds of some stages, or of the whole run."""
    return report.seconds.total if stages is None else sum(report.seconds.by_stage[stage] for stage in stages)


def main() -> None:
    """Parse the command line, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=None, help="another model, with --data and --type")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--type", default="text-generation")
    parser.add_argument("--metric", default="perplexity")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    options = parser.parse_args()
    spec, rounds = request(options), []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            first = prune(spec, FIRST, folder / "first", folder / "kept")
            second = prune(spec, SECOND, folder / "second", folder / "kept")
            alone = prune(spec, SECOND, folder / "alone", None)
            same = (folder / "second/model.safetensors").read_bytes() == (folder / "alone/model.safetensors").read_bytes()
            if not same:
                sys.exit("the weights of the second target are not those of a job of its own")
        rounds.append((first, second, alone))
    named = {"first": 0, "second": 1, "second alone": 2}
    stages = [stage for stage in rounds[0][0].seconds.by_stage if any(own.seconds.by_stage[stage] for own in rounds[0])]
    table = Table(title=f"{Path(str(spec['model'])).name}: seconds, median of {options.rounds}")
    for heading in ("stage", *named):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for label, chosen in [*((stage, [stage]) for stage in stages), ("pruning", PRUNING), ("whole job", None)]:
        found = [statistics.median(seconds_of(own[place], chosen) for own in rounds) for place in named.values()]
        table.add_row(label, *(f"{value:.1f}" for value in found))
    ratios = {
        "second_to_first": [seconds_of(second) / seconds_of(first) for first, second, _ in rounds],
        "pruning_to_recover": [seconds_of(own, PRUNING) / seconds_of(own, ["recover"]) for _, own, _ in rounds],
    }
    console = Console()
    console.print(table)
    for name, values in ratios.items():
        console.print(
            f"{name.replace('_', ' ')}: {statistics.median(values):.2f} ({', '.join(f'{own:.2f}' for own in values)})"
        )
    seconds = [{name: own[place].seconds.model_dump() for name, place in named.items()} for own in rounds]
    print(json.dumps({"rounds": seconds, "ratios": ratios}))


if __name__ == "__main__":
    main()
