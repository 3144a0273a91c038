"""``make bench-streaming``: prune a model several times larger than a memory limit that the kernel enforces.

The model is a random Llama of many blocks in bfloat16, in shards. The limit is the memory that the same run takes with a model
of two blocks (for libraries and one block), plus a fraction of the deep model's float32 weights. Under the limit ``coppice
run`` runs three times: with paged weights; with all weights in memory, which ends out of memory; and with the choice left to
it. Then the first two run without a limit, for their time. Prints a table and, last, one JSON object. Needs the right to make
memory control groups (version 1).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests import tiny
from tests.deep import Size, deep_spec, run_job, write_deep_model
from tests.memory_limit import Limited, can_limit

_MB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=62)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--neurons", type=int, default=4096)
    parser.add_argument("--times", type=float, default=4.0, help="weights, in room for them under the limit")
    parser.add_argument("--method", default="fisher-cg")
    parser.add_argument("--untimed", action="store_true", help="leave out the runs without a limit")
    parser.add_argument("--scratch", type=Path, default=None, help="folder on a disk with room")
    options = parser.parse_args()
    if not can_limit():
        sys.exit("this machine does not let us make control groups of memory (/sys/fs/cgroup/memory)")
    size = Size(options.blocks, options.hidden, options.neurons)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        tiny.write_dataset(folder / "data")
        parameters = write_deep_model(folder / "deep", size)
        write_deep_model(folder / "shallow", Size(2, size.hidden, size.neurons))
        change = {"method": options.method}
        spec = deep_spec(folder / "shallow", folder / "data", "paged", **change)
        base, _ = run_job(spec, folder / "out-shallow", None)
        weights = 4 * parameters
        limit = base.anonymous + round(weights / options.times)
        rows: list[dict[str, Any]] = []
        for name, kind, most in (
            ("paged, limited", "paged", limit),
            ("resident, limited", "resident", limit),
            ("auto, limited", "auto", limit),
            ("paged", "paged", None),
            ("resident", "resident", None),
        ):
            if most is None and options.untimed:
                continue
            spec = deep_spec(folder / "deep", folder / "data", kind, **change)
            done, report = run_job(spec, folder / f"out-{len(rows)}", most)
            rows.append(_row(name, done, report))
    table = Table(title=f"{parameters / 1e6:.0f}M parameters, {asdict(size)}, {options.method}")
    for column in ("run", "exit", "weights", "memory not of files, MB", "seconds", "score", "recover", "bundle, MB"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for row in rows:
        table.add_row(
            *(str(row[name]) for name in ("run", "exit", "weights", "mb", "seconds", "score", "recover", "bundle_mb"))
        )
    Console().print(table)
    figures = {"weights_mb": weights // _MB, "base_mb": base.anonymous // _MB, "limit_mb": limit // _MB}
    Console().print(figures)
    print(json.dumps({"rows": rows, "parameters": parameters, "size": asdict(size), "method": options.method, **figures}))


def _row(name: str, done: Limited, report: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"run": name, "exit": done.status, "mb": done.anonymous // _MB}
    row |= dict.fromkeys(("weights", "seconds", "score", "recover", "bundle_mb"), "")
    if report is not None:
        row["weights"] = report["memory"]["weights"]
        row["seconds"] = round(report["seconds"]["total"], 1)
        row["stages"] = {stage: round(value, 1) for stage, value in report["seconds"]["by_stage"].items()}
        row |= {stage: row["stages"][stage] for stage in ("recover", "score")}
        row["bundle_mb"] = report["bytes"]["pruned"] // _MB
    else:
        row["error"] = (done.output + done.errors).strip().splitlines()[-1:]
    return row


if __name__ == "__main__":
    main()
