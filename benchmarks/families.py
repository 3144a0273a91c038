"""``make bench-families``: the quality that every method and baseline keeps, on small models of every kind.

The benchmark trains the models itself. Each figure comes from a whole job, from the request to the proof in a fresh process.
Prints a table and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED
from benchmarks.small_models import SMALL_MODELS, prepare
from benchmarks.ways import WAYS, WAYS_OF_EXPERTS
from pruning_core.arch.structure import groups_of
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec

_NOTHING = {"kind": "none"}


def ways_of_experts(keep: float, model: Path) -> dict[str, dict[str, Any]]:
    """Return the same for a mixture of experts, with the parameters that a share of the experts of each layer leaves."""
    facts = read_checkpoint(model)
    experts = sum(group.size * group.params_per_unit for group in groups_of(facts) if group.kind == "expert")
    share = 1 - (1 - keep) * experts / facts.parameters
    fields = {"target": {"metric": "params", "keep": round(share + 5e-4, 3)}, "artifacts": {"layout": "stock"}}
    return {name: {**own, **fields} for name, own in WAYS_OF_EXPERTS.items()}


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


def _bytes(report: Report) -> float:
    return report.bytes.pruned / report.bytes.dense


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/")
    parser.add_argument("--models", type=Path, default=None, help="folder that keeps the trained models for later runs")
    parser.add_argument("--families", nargs="+", default=[small.name for small in SMALL_MODELS])
    parser.add_argument("--keep", nargs="+", type=float, default=[0.7, 0.5])
    parser.add_argument("--samples", type=int, default=512)
    known = [*ways(0.5), *WAYS_OF_EXPERTS]
    parser.add_argument("--ways", nargs="+", default=list(dict.fromkeys(known)), choices=list(dict.fromkeys(known)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds of jobs; each has rows of its own")
    options = parser.parse_args()
    console, rows = Console(stderr=True), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.models or Path(scratch)
        for small in (own for own in SMALL_MODELS if own.name in options.families):
            task = prepare(small, options.shared, folder, console.print)
            for keep in options.keep:
                offered = ways_of_experts(keep, folder / small.name) if small.experts else ways(keep)
                for name, seed in product((own for own in options.ways if own in offered), options.seeds):
                    report = prune(folder / small.name, task, {**offered[name], "seed": seed}, options.samples)
                    row = {"family": small.name, "keep": keep, "way": name, "seed": seed}
                    row |= report.quality.model_dump(mode="json")
                    rows.append(row | {"kept": kept(report), "speedup": report.latency_ms.speedup, "bytes": _bytes(report)})
                    console.print(f"{small.name}, {keep:g}, {name}, seed {seed}: {report.quality.pruned:.4f}")
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
            cells = [
                _cell([row for row in rows if (row["family"], row["keep"], row["way"]) == (own, keep, way)]) for own in families
            ]
            if any(cells):
                table.add_row(f"{way}, {keep:g}", *cells)
        table.add_section()
    return table


def _cell(rows: list[dict[str, Any]]) -> str:
    """Return the mean share kept over the seeds; and of the first seed how much worse it is, with its 95 % interval."""
    if not rows:
        return ""
    mean = f"{sum(row['kept'] for row in rows) / len(rows):.1%}"
    difference = rows[0]["difference"]
    if difference is None:
        return mean
    return f"{mean} ({rows[0]['pruned'] - rows[0]['dense']:+.3g}: {difference['low']:+.3g} to {difference['high']:+.3g})"


if __name__ == "__main__":
    main()
