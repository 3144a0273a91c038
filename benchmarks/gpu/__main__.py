"""``make gpu``: what a GPU says of Coppice, in one run of less than 8 minutes.

Runs the tests that have a branch for GPUs, and measures the rows that docs/benchmarks.md has none of: see `parts.PARTS`. Each
part has a process and a time of its own; what one of them loses, no other does. Models are random, so that nothing has to be
there but the checkout and what `needs.NEEDED` names. Prints one table, and writes ``gpu.json``, ``gpu.txt`` and ``gpu.log`` to
``$OUT``, or where ``--out`` says. ``--dry-run`` does the same on the CPU with tiny models: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu.needs import ROOT, Machine, look
from benchmarks.gpu.parts import PARTS, Part, Setting
from benchmarks.gpu.running import Outcome, command_of, run_apart, run_here


def main(given: list[str] | None = None) -> int:
    """Run the parts, or one of them; return the exit status: 0 where every part is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts alone")
    parser.add_argument("--limit", type=float, default=470, help="seconds for all of it")
    parser.add_argument("--out", type=Path, default=None, help="folder of the results; $OUT, or benchmarks/results/gpu")
    parser.add_argument("--together", action="store_true", help="all parts in this process; a dry run is faster so")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    began, found = time.monotonic(), look()
    if found.missing:
        print(
            f"missing here: {', '.join(found.missing)}. Install them, or build them on a machine with a registry by make "
            "gpu-pack, and bring build/gpu-site along",
            file=sys.stderr,
        )
        return 2
    if options.part is not None:
        part = next(own for own in PARTS if own.name == options.part)
        return _one(part, dry=options.dry_run, rows=options.rows)
    folder: Path = options.out or Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results" / "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.log").unlink(missing_ok=True)
    for said in found.other:
        print(said, file=sys.stderr)
    outcomes: list[Outcome] = []
    for part in (own for own in PARTS if options.only is None or own.name in options.only):
        left = options.limit - (time.monotonic() - began)
        outcomes.append(_attempt(part, left, options, folder))
        print(f"{part.name}: {outcomes[-1].status}, {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
        write(folder, outcomes, found, seconds=time.monotonic() - began, dry=options.dry_run)
    print((folder / "gpu.txt").read_text(encoding="utf-8"))
    return 0 if all(own.status == "done" for own in outcomes) else 1


def _attempt(part: Part, left: float, options: argparse.Namespace, folder: Path) -> Outcome:
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.jsonl"
        if options.together:
            return run_here(part, _setting(Path(scratch), dry=options.dry_run), rows)
        if left < 5:
            return Outcome(part.name, "left out", problem="no time was left")
        command = command_of(part, dry=options.dry_run, rows=rows)
        return run_apart(part.name, command, min(part.budget_s, left), rows, folder / "gpu.log")


def _one(part: Part, *, dry: bool, rows: Path) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        done = run_here(part, _setting(Path(scratch), dry=dry), rows)
    if done.problem is not None:
        print(done.problem)
    return 0 if done.status == "done" else 1


def _setting(folder: Path, *, dry: bool) -> Setting:
    return Setting("cpu" if dry else "cuda", dry, folder)


def write(folder: Path, outcomes: list[Outcome], found: Machine, *, seconds: float, dry: bool) -> None:
    """Write the table and the JSON of what is there so far: a run that is ended leaves what it had."""
    whole = {
        "dry_run": dry,
        "seconds": round(seconds, 1),
        "versions": found.versions,
        "other_versions": found.other,
        "parts": [vars(own) for own in outcomes],
    }
    (folder / "gpu.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.txt").write_text(table(outcomes, dry=dry), encoding="utf-8")


def table(outcomes: list[Outcome], *, dry: bool) -> str:
    """Return the table in Markdown, as docs/benchmarks.md has it."""
    lines = ["A dry run: these figures mean nothing.", ""] if dry else []
    lines += ["| part | what | figures |", "| --- | --- | --- |"]
    for own in outcomes:
        for row in own.rows:
            figures = ", ".join(f"{name} {_said(value)}" for name, value in row.items() if name != "what")
            lines.append(f"| {own.name} | {row['what']} | {figures} |")
        if own.status != "done":
            lines.append(f"| {own.name} | **{own.status}** | {own.problem} |")
    about = "; ".join(f"{part.name}: {part.about}" for part in PARTS if any(own.name == part.name for own in outcomes))
    return "\n".join([*lines, "", about, ""])


def _said(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
