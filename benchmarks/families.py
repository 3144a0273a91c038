"""``make bench-families``: the quality that every method and baseline keeps, on small models of every kind.

The benchmark trains the models itself. Each figure comes from a whole job, from the request to the proof in a fresh process.
Prints a table and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED
from benchmarks.small_models import SMALL_MODELS, prepare
from benchmarks.ways import WAYS
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec

_NOTHING = {"kind": "none"}


def ways(keep: float) -> dict[str, dict[str, Any]]:
    """Return the fields of the compared specs, by name: with a MACs target, or with the sparsity that leaves the same share."""
    half = {"target": {"metric": "macs", "keep": keep}}
    zeros = {"target": {"metric": "sparsity", "sparsity": 1 - keep}}
    return {
        **{name: {**fields, **half} for name, fields in WAYS.items()},
        "block-lasso": {"method": "block-lasso", **zeros},
        "block-lasso, paper": {"method": {"name": "block-lasso", "preset": "paper"}, **zeros},
        "admm-pattern, unstructured": {"method": {"name": "admm-pattern", "pattern": "unstructured"}, **zeros},
        "admm-pattern, unstructured, paper": {
            "method": {"name": "admm-pattern", "pattern": "unstructured", "preset": "paper"},
            **zeros,
        },
        "wanda, unstructured": {
            "method": {"name": "admm-pattern", "pattern": "unstructured", "selection": "wanda"},
            "recovery": _NOTHING,
            **zeros,
        },
    }


def prune(model: Path, task: dict[str, Any], changes: dict[str, Any], samples: int) -> Report:
    fields = {
        "model": str(model),
        "task": task,
        "calibration": {"samples": samples, "max_length": 64},
        "latency": {"repeats": 5, "length": 64},
        **changes,
    }
    with tempfile.TemporaryDirectory() as folder:
        return run(PruneSpec.model_validate(fields), Path(folder) / "bundle")


def kept(report: Report) -> float:
    """Return the share of the dense model's quality that is kept."""
    quality = report.quality
    return quality.dense / quality.pruned if quality.lower_is_better else quality.pruned / quality.dense


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/")
    parser.add_argument("--models", type=Path, default=None, help="folder that keeps the trained models for later runs")
    parser.add_argument("--families", nargs="+", default=[small.name for small in SMALL_MODELS])
    parser.add_argument("--keep", nargs="+", type=float, default=[0.7, 0.5])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--ways", nargs="+", default=list(ways(0.5)), choices=list(ways(0.5)))
    options = parser.parse_args()
    console, rows = Console(stderr=True), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.models or Path(scratch)
        for small in (own for own in SMALL_MODELS if own.name in options.families):
            task = prepare(small, options.shared, folder, console.print)
            for keep in options.keep:
                for name, changes in ((name, ways(keep)[name]) for name in options.ways):
                    report = prune(folder / small.name, task, changes, options.samples)
                    row = {"family": small.name, "keep": keep, "way": name, **report.quality.model_dump(mode="json")}
                    rows.append(row | {"kept": kept(report), "speedup": report.latency_ms.speedup})
                    console.print(f"{small.name}, {keep:g}, {name}: {report.quality.pruned:.4f}")
    Console().print(_table(rows, options.keep, options.ways))
    print(json.dumps({"samples": options.samples, "rows": rows}))


def _table(rows: list[dict[str, Any]], keeps: list[float], compared: list[str]) -> Table:
    table = Table(title="Share of the dense model's quality that is kept (for perplexity, dense / pruned)")
    table.add_column("way")
    families = {row["family"]: row for row in rows}
    for name, row in families.items():
        table.add_column(f"{name}\n{row['metric']}\n{row['dense']:.4g}", justify="right")
    for keep in keeps:
        for way in compared:
            own = {row["family"]: row["kept"] for row in rows if (row["keep"], row["way"]) == (keep, way)}
            table.add_row(f"{way}, {keep:g}", *(f"{own[name]:.1%}" if name in own else "" for name in families))
        table.add_section()
    return table


if __name__ == "__main__":
    main()
