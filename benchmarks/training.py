"""``make bench-training``: the published training methods from dense weights, beside what needs none, on the same rows.

Group Lasso (``block-lasso``) and ADMM (``admm-pattern``) start from the dense weights of the models of ``../shared``. Beside
them stand their choice with the refit alone, the one-shot tiers, fine-tuning after a hard prune, and the papers' penalties. All
trainings take the same steps on the same rows: a part of the training split, as CPUs are slow. Defaults were chosen on STS-B.
Prints a table with paired intervals and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec

_PAPERS_PENALTY = {"refit": False, "penalised": "all", "learning_rate": 5e-5}
# The method's own training by name: options beside start, epochs and rows; None: the one-shot tier.
LASSO: dict[str, dict[str, Any] | None] = {
    "group Lasso from dense weights": {"start": "dense"},
    "its choice and the refit alone": {"start": "dense", "lasso": 1.0},
    "the Lasso's own segments": {"start": "dense", "chooses": "segments"},
    "every group penalised, no refit": {"start": "dense", **_PAPERS_PENALTY},
    "one-shot": None,
    "one-shot, then tuning": {"start": "one-shot"},
}
ADMM: dict[str, dict[str, Any] | None] = {
    "ADMM from dense weights": {"start": "dense"},
    "ADMM from dense weights, then SR-STE": {"start": "dense", "finish": "sr-ste"},
    "its choice and the refit alone": {"start": "dense", "admm": 1.0, "finish": "none"},
    "ADMM from dense weights, no refit": {"start": "dense", "refit": False},
    "hard prune, then tuning": {"start": "dense", "admm": 0.0},
    "one-shot": None,
    "one-shot, then tuning": {"start": "one-shot", "admm": 0.0},
}
# Name of a structure: fields of the method, target, and its ways.
STRUCTURES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any] | None]]] = {
    **{
        f"segments, {factor}x": ({"name": "block-lasso"}, {"sparsity": round(1 - 1 / factor, 6)}, LASSO) for factor in (2, 3, 5)
    },
    "2:4": ({"name": "admm-pattern", "pattern": "2:4"}, {}, ADMM),
    "4x4:8": ({"name": "admm-pattern", "pattern": "4x4:8"}, {}, ADMM),
}


def prune(options: argparse.Namespace, task: str, structure: str, way: str, seed: int) -> Report:
    """Make one bundle and return its report."""
    method, target, ways = STRUCTURES[structure]
    training = ways[way]
    trained = {} if training is None else {"tier": "trained", "training": {**_length(options), **training}}
    spec = PruneSpec.model_validate(
        {
            "model": str(options.shared / "models" / f"minilm-{task}"),
            "task": f"glue/{task}",
            "data": str(options.shared / "data" / "glue" / task),
            "method": {**method, **trained},
            "seed": seed,
            "latency": {"repeats": 3},
            "artifacts": {"formats": ["safetensors"]},
            **target,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        return run(spec, Path(folder) / "bundle", device="cpu")


def _length(options: argparse.Namespace) -> dict[str, Any]:
    return {"epochs": options.epochs, "max_train_rows": options.rows}


def row_of(task: str, structure: str, way: str, report: Report) -> dict[str, Any]:
    """Return the figures of one bundle."""
    quality, training = report.quality, report.training
    return {
        "task": task,
        "structure": structure,
        "way": way,
        "seed": report.seed,
        "dense": quality.dense,
        "pruned": quality.pruned,
        "difference": quality.difference and quality.difference.model_dump(mode="json"),
        "steps": 0 if training is None else training.steps,
        "travel": max((own.measures.get("travel", 0.0) for own in training.points), default=0.0) if training else None,
        "seconds": report.seconds.by_stage,
    }


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a table."""
    table = Table(title="Share of the dense score kept; difference in points with its 95 % interval")
    for heading in ("task", "structure", "way", "seed", "steps", "kept", "difference", "train s"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for row in rows:
        own = row["difference"]
        said = "" if own is None else f"{100 * own['value']:+.1f} ({100 * own['low']:+.1f} to {100 * own['high']:+.1f})"
        kept, train_s = f"{100 * row['pruned'] / row['dense']:.1f} %", f"{row['seconds'].get('train', 0):.0f}"
        table.add_row(row["task"], row["structure"], row["way"], str(row["seed"]), str(row["steps"]), kept, said, train_s)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--tasks", nargs="+", default=["stsb", "sst2"])
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES), choices=list(STRUCTURES))
    parser.add_argument("--ways", nargs="+", default=None, choices=sorted({*LASSO, *ADMM}), help="all of them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=4096, help="training rows")
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    if not (options.shared / "models").is_dir():
        sys.exit(f"no models under {options.shared}; give --shared a folder with models/ and data/")
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    for task in options.tasks:
        for structure in options.structures:
            for way in STRUCTURES[structure][2]:
                if options.ways is not None and way not in options.ways:
                    continue
                for seed in options.seeds:
                    rows.append(row_of(task, structure, way, prune(options, task, structure, way, seed)))
                    console.print(f"{task}, {structure}, {way}, seed {seed}: {rows[-1]['pruned'] / rows[-1]['dense']:.4f}")
    Console(width=160).print(table_of(rows))
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
