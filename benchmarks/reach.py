"""``make bench-reach``: jobs on random models of real sizes of every family, from the request to the proof.

Every model has published widths and depths, and weights drawn by its own initialisation. Its quality means nothing, but time,
memory and the measured target do. Each job runs in a process of its own, one at a time. Models whose job would not fit into
memory are left out, and listed as such. Prints a table and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.apart import Done, run_apart
from benchmarks.reach_models import CATALOGUE, RealSize, task_of, write_data

STAGES = ("load", "calibrate", "score", "search", "recover", "materialise", "evaluate", "latency", "accept")
# Peak memory of a job, as a multiple of the float32 weights: dense model, pruned model, and the checkpoint loaded back.
_COPIES = 2.6
_LIBRARIES = 0.7 * 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", metavar="NAME", help=f"beginnings of names; all of {', '.join(CATALOGUE)}")
    parser.add_argument("--largest", type=float, default=1.4e9, help="most parameters of a model")
    parser.add_argument("--memory-gb", type=float, default=None, help="for one job; two thirds of what is free by default")
    parser.add_argument("--samples", type=int, default=32, help="rows of calibration")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--keep", type=float, default=0.5, help="share of the MACs")
    parser.add_argument("--threads", type=int, default=0, help="of a job; torch's own number by default")
    parser.add_argument("--device", default="", help="cpu or cuda; a GPU where there is one by default")
    options = parser.parse_args()
    chosen = [own for own in CATALOGUE.values() if _is_named(own, options.families)]
    if not chosen:
        sys.exit("no such family")
    room = options.memory_gb * 2**30 if options.memory_gb is not None else _free_memory() * 2 / 3
    rows: list[dict[str, Any]] = []
    for own in chosen:
        parameters = own.parameters()
        if parameters > options.largest:
            continue
        needed = 4 * parameters * _COPIES + _LIBRARIES
        if needed > room:
            row = {"skipped": f"would take about {needed / 2**30:.1f} GB of {room / 2**30:.1f}"}
        else:
            row = measure(own, options)
        rows.append({"name": own.name, "parameters": parameters, **row})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    Console(width=180).print(table(rows, options))
    print(json.dumps({"samples": options.samples, "length": options.length, "keep": options.keep, "models": rows}))


def measure(own: RealSize, options: argparse.Namespace) -> dict[str, Any]:
    """Write a model and its data, run the job, and return its outcome."""
    folder = Path(tempfile.mkdtemp(prefix="coppice-reach-"))
    try:
        # Calibration draws twice the samples and keeps the longer half. Here all rows are equally long.
        data = write_data(folder / "data", own.task, 2 * options.samples, 16, options.length)
        model = own.write(folder / "model")
        spec = {
            "model": str(model),
            "task": task_of(own.task, data),
            "target": {"metric": "macs", "keep": options.keep},
            "calibration": {"samples": options.samples, "max_length": options.length},
            "evaluation": {"max_samples": 16, "max_length": options.length},
            "latency": {"repeats": 3, "length": options.length},
        }
        done = run_apart(spec, folder / "out", options.device, options.threads or None)
        weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
        return {"task": own.task, "weights": weights, **_told(done)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _told(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = {
        "problem": done.problem,
        "at_submit": not done.submitted,
        "peak": done.peak,
        "job_peak": done.job_peak,
    }
    report = done.report
    if report is None:
        return found
    return found | {
        "seconds": report.seconds.model_dump(),
        "asked": report.target.requested,
        "achieved": report.target.achieved,
        "kept_parameters": report.parameters.pruned,
        "tokens": report.data.tokens,
        "speedup": report.latency_ms.speedup,
        "difference": report.acceptance.max_difference if report.acceptance is not None else None,
        "device": report.device,
    }


def table(rows: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """Return the table of all models. Memory is in GB, and as a multiple of the float32 weights."""
    shown = Table(title=f"{options.samples} samples of {options.length} tokens, {os.cpu_count()} cores")
    shown.add_column("model")
    heads = ("M par.", "f32 GB", "peak GB", "x", "job GB", *STAGES, "total s", "achieved", "speed-up", "proof diff.")
    for head in heads:
        shown.add_column(head, justify="right")
    for row in rows:
        size = 4 * row["parameters"]
        start = [row["name"], f"{row['parameters'] / 1e6:.0f}", _gb(size)]
        if "seconds" not in row:
            shown.add_row(*start, row.get("skipped") or row["problem"])
            continue
        by_stage = row["seconds"]["by_stage"]
        shown.add_row(
            *start,
            _gb(row["peak"]),
            f"{row['peak'] / size:.1f}",
            _gb(row["job_peak"]),
            *(f"{by_stage.get(stage, 0):.1f}" for stage in STAGES),
            f"{row['seconds']['total']:.0f}",
            f"{row['achieved']:.4f}" + (f" ({row['problem']})" if row["problem"] else ""),
            f"{row['speedup']:.2f}",
            "" if row["difference"] is None else f"{row['difference']:.0e}",
        )
    return shown


def _gb(size: float) -> str:
    return f"{size / 2**30:.2f}"


def _is_named(own: RealSize, names: list[str] | None) -> bool:
    return names is None or own.name.startswith(tuple(names))


def _free_memory() -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable:"))


if __name__ == "__main__":
    main()
