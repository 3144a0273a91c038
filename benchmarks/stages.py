"""``make bench-stages BASE=COMMIT``: the seconds of each stage of a job, in a commit and in this tree.

Both trees prune the same models by their own defaults and command line, in turns, each job in a process of one thread. Seconds
are the processor's, which do not depend on what else runs, with those of the process that proves the bundle. What follows the
pruning (evaluate, latency, accept) in this tree is compared with the pruning (score, recover) of the commit. Prints
a table for each model; the last line of stdout is one JSON object, which is written to benchmarks/results/stages.json too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED, shared_model
from benchmarks.same_trees import ROOT, TreeFailed, checked_out, machine, resolve

RESULTS = Path(__file__).with_name("results") / "stages.json"
_DRIVER = Path(__file__).with_name("stages_driver.py")
JUDGING, PRUNING = ("evaluate", "latency", "accept"), ("score", "recover")
GOAL = 1.0
# The job of the issue: 128 samples, the whole held-out text in blocks of 128 tokens.
_SAMPLES = 128
_TASK = {"type": "text-generation", "metric": "perplexity", "columns": {"text": ["text"]}}


@dataclass(frozen=True)
class Job:
    """One job: its name in the table, and the spec."""

    name: str
    spec: Mapping[str, Any]


def decoder_job(folder: Path, text: Path, keep: float, samples: int, rows: int | None) -> Job:
    """Return the job on a decoder.

    Args:
        folder: The decoder.
        text: Its text, a folder with train and validation.
        keep: Share of the MACs that is kept.
        samples: Calibration samples.
        rows: Rows of text that are judged; None: all.
    """
    spec = {
        "model": str(folder),
        "task": {**_TASK, "dataset": str(text)},
        "target": {"metric": "macs", "keep": keep},
        "calibration": {"samples": samples},
        **({} if rows is None else {"evaluation": {"max_samples": rows}}),
    }
    return Job(folder.name, spec)


def minilm_job(shared: Path, task: str, keep: float) -> Job:
    """Return the job on a MiniLM that was trained for a task of GLUE."""
    spec = {
        "model": str(shared_model(shared, task)),
        "task": f"glue/{task}",
        "data": str(shared / "data" / "glue" / task),
        "target": {"metric": "macs", "keep": keep},
    }
    return Job(f"minilm-{task}", spec)


def run_in(tree: Path, job: Job, scratch: Path) -> dict[str, Any]:
    """Run a job by a tree's own command line, and return its report.

    Raises:
        TreeFailed: It did not end well.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        spec, out = Path(folder) / "spec.json", Path(folder) / "bundle"
        spec.write_text(json.dumps(job.spec), encoding="utf-8")
        usual = {name: value for name, value in os.environ.items() if not name.startswith(("COPPICE_", "PYTHON"))}
        settings = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": folder}
        command = [
            sys.executable,
            "-P",
            str(_DRIVER),
            "--spec",
            str(spec),
            "--out",
            str(out),
            "--device",
            "cpu",
            "--threads",
            "1",
        ]
        done = subprocess.run(command, cwd=tree, env=usual | settings, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TreeFailed(f"{tree} ends {job.name} with {done.returncode}: {' / '.join(done.stderr.splitlines()[-3:])}")
        return json.loads((out / "report.json").read_text(encoding="utf-8"))


def row_of(job: Job, base: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the reports of both trees: medians of each stage, and the ratio of the goal."""
    stages = {name: _stages(reports) for name, reports in (("base", base), ("new", new))}
    judging = {name: sum(own[stage] for stage in JUDGING) for name, own in stages.items()}
    pruning = {name: sum(own[stage] for stage in PRUNING) for name, own in stages.items()}
    return {
        "job": job.name,
        "seconds": stages,
        "judging": judging,
        "pruning": pruning,
        "ratio": judging["new"] / pruning["base"],
        "ratio_before": judging["base"] / pruning["base"],
        "quality": {"base": base[-1]["quality"], "new": new[-1]["quality"]},
        "latency_ms": {"base": base[-1]["latency_ms"], "new": new[-1]["latency_ms"]},
    }


def _stages(reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = reports[0]["seconds"]["by_stage"]
    found = {name: statistics.median(own["seconds"]["by_stage"][name] for own in reports) for name in names}
    return found | {"total": statistics.median(own["seconds"]["total"] for own in reports)}


def show(console: Console, row: Mapping[str, Any]) -> None:
    """Print the table of one job."""
    table = Table(title=f"{row['job']}: processor seconds by stage")
    for heading in ("stage", "base", "this tree"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    base, new = row["seconds"]["base"], row["seconds"]["new"]
    for stage in base:
        if base[stage] or new.get(stage):
            table.add_row(stage, f"{base[stage]:.1f}", f"{new[stage]:.1f}")
    for name, parts in (("judging", JUDGING), ("pruning", PRUNING)):
        table.add_row(" + ".join(parts), f"{row[name]['base']:.1f}", f"{row[name]['new']:.1f}")
    console.print(table)
    latency, quality = row["latency_ms"]["new"], row["quality"]["new"]
    why = quality["precision"]["reason"] if quality.get("precision") else "float32"
    console.print(f"{' + '.join(JUDGING)} of this tree / {' + '.join(PRUNING)} of the base: ", end="")
    console.print(f"{row['ratio']:.2f} (before: {row['ratio_before']:.2f}; goal: at most {GOAL:g})")
    console.print(f"quality: {quality['dense']:.4f} -> {quality['pruned']:.4f} ({why}); ", end="")
    console.print(f"latency: {latency['speedup']:.2f}x, {latency['repeats']} turns, {latency['interval']}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the commit")
    parser.add_argument("--decoder", type=Path, help="folder of a decoder, such as SmolLM2-135M-Instruct in bfloat16")
    parser.add_argument("--text", type=Path, help="its text: a folder with train.jsonl and validation.jsonl, column text")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--no-minilm", action="store_true", help="the decoder alone")
    parser.add_argument("--task", default="stsb")
    parser.add_argument("--keep", type=float, default=0.8)
    parser.add_argument("--samples", type=int, default=_SAMPLES, help="calibration samples of the decoder")
    parser.add_argument("--rows", type=int, help="judge the decoder on the first rows only")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each tree, in turns")
    options = parser.parse_args()
    if (options.decoder is None) != (options.text is None):
        parser.error("--decoder and --text go together")
    jobs: list[Job] = []
    if options.decoder is not None:
        jobs.append(decoder_job(options.decoder, options.text, options.keep, options.samples, options.rows))
    if not options.no_minilm:
        jobs.append(minilm_job(options.shared, options.task, options.keep))
    console, rows = Console(), []
    try:
        commit = resolve(options.base)
        with (
            tempfile.TemporaryDirectory(prefix="coppice-stages-") as scratch,
            checked_out(commit, Path(scratch) / "base") as base,
        ):
            for job in jobs:
                reports: dict[Path, list[dict[str, Any]]] = {base: [], ROOT: []}
                for _turn in range(options.repeats):
                    for tree, kept in reports.items():
                        kept.append(run_in(tree, job, Path(scratch)))
                rows.append(row_of(job, reports[base], reports[ROOT]))
                show(console, rows[-1])
    except TreeFailed as error:
        sys.exit(str(error))
    found = {
        "base": commit,
        "machine": json.loads(machine()),
        "keep": options.keep,
        "samples": options.samples,
        "judged": options.rows,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
