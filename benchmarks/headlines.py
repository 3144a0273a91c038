"""``make bench-headlines``: what the defaults keep on tasks that no default was chosen on, beside baselines.

Three labelled tasks are made of Debian packages (`benchmarks.held_out`): WordNet's glosses to lexical classes, similarity in
its taxonomy, sections of packages by their descriptions. all-MiniLM-L6-v2 is fine-tuned on each, by a recipe that was fixed
before any model was trained to its end. SST-2 and STS-B, which defaults were chosen on (decisions 5, 7, 14), stand beside
them where ``--shared`` has them. Baselines run as they come and with the same repair.

Prints a table and, last, one JSON object, which goes to benchmarks/results/headlines.json, too. Figures of an earlier run in
the same ``--out`` are taken where the request is the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.held_out.tasks import HELD_OUT, prepare
from benchmarks.models import SHARED
from benchmarks.ways import DEFAULT, WAYS
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec

RESULTS = Path(__file__).with_name("results")
KEEPS = (0.7, 0.5, 0.4)
CHOSEN_ON = ("sst2", "stsb")
# The first so many held-out rows of our tasks, which stand in no order.
MOST_JUDGED = 1000
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A task to prune for.

    Attributes:
        name: Short name.
        chosen_on: Whether defaults were chosen on it.
        fields: The spec's model, data and task.
        about: What its rows are.
    """

    name: str
    chosen_on: bool
    fields: dict[str, Any]
    about: dict[str, object]


def cases(names: Sequence[str], shared: Path, folder: Path, console: Console) -> Iterator[Case]:
    """Yield the tasks by name, each made when it is its turn. Those of ``shared`` are left out where it has no such model."""
    for task in (task for task in HELD_OUT if task.name in names):
        ready = prepare(task, folder, lambda line: console.print(line, highlight=False))
        fields = {"model": str(ready.model), "task": ready.task, "evaluation": {"max_samples": MOST_JUDGED}}
        yield Case(task.name, False, fields, ready.about)
    for name in (name for name in CHOSEN_ON if name in names):
        model, data = shared / "models" / f"minilm-{name}", shared / "data" / "glue" / name
        if model.is_dir():
            yield Case(name, True, {"model": str(model), "task": f"glue/{name}", "data": str(data)}, {})
        else:
            console.print(f"{name} is left out: no {model}", highlight=False)


def measured(case: Case, way: str, seed: int, folder: Path) -> list[Row]:
    """Prune for all budgets in one job; return a row for each. A run of an equal request that is in the folder is taken."""
    targets = [{"metric": "macs", "keep": keep} for keep in KEEPS]
    # No figure of this benchmark is a time.
    fields = {**case.fields, "targets": targets, "seed": seed, "latency": {"repeats": 3, "length": 32}, **WAYS[way]}
    kept = folder / "runs" / f"{case.name}, {way}, {seed}.json"
    if kept.is_file():
        stored = json.loads(kept.read_text(encoding="utf-8"))
        if stored["spec"] == fields:
            return stored["rows"]
    with tempfile.TemporaryDirectory() as scratch:
        report = run(PruneSpec.model_validate(fields), Path(scratch) / "bundle")
    rows = _rows(case, way, seed, report)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"spec": fields, "rows": rows}), encoding="utf-8")
    return rows


def _rows(case: Case, way: str, seed: int, report: Report) -> list[Row]:
    return [
        {
            "task": case.name,
            "defaults_chosen_on_it": case.chosen_on,
            "way": way,
            "seed": seed,
            "keep": point.target.requested,
            "achieved": point.target.achieved,
            "kept": point.quality.kept,
            "quality": point.quality.model_dump(mode="json"),
        }
        for point in report.frontier
    ]


def cell(rows: Sequence[Row], task: str, way: str, keep: float) -> str:
    """Return a cell: the mean share kept, and of the first seed the difference with its interval, in points."""
    own = [row for row in rows if (row["task"], row["way"], row["keep"]) == (task, way, keep)]
    if not own:
        return ""
    shares = [row["kept"] for row in own]
    said = f"{statistics.mean(shares):.1%}"
    if len(shares) > 1:
        said += f" ({min(shares):.1%} to {max(shares):.1%})"
    difference = own[0]["quality"]["difference"]
    if difference is None:
        return said
    low, value, high = (100 * difference[end] for end in ("low", "value", "high"))
    return f"{said}\n{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def table_of(rows: Sequence[Row], seeds: Sequence[int]) -> Table:
    """Return the table: tasks beside each other, ways by budget."""
    table = Table(
        title=f"Share of the dense model's quality that is kept, mean (least to most) of seeds {list(seeds)}; below it, of the "
        "first seed, pruned minus dense in points with its 95 % interval over the rows"
    )
    table.add_column("MACs, way")
    first = {row["task"]: row for row in reversed(rows)}
    order = [task for task in (*(held.name for held in HELD_OUT), *CHOSEN_ON) if task in first]
    for name in order:
        quality, note = first[name]["quality"], " *" if first[name]["defaults_chosen_on_it"] else ""
        heading = f"{name}{note}\n{quality['metric']} {quality['dense']:.4f}\n{quality['samples']} rows"
        table.add_column(heading, justify="right")
    for keep in KEEPS:
        for way in WAYS:
            table.add_row(f"{keep:g}, {way}", *(cell(rows, name, way, keep) for name in order))
        table.add_section()
    table.caption = "* defaults were chosen on this set"
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/ of SST-2 and STS-B")
    parser.add_argument("--out", type=Path, default=RESULTS / "headlines", help="folder for models, data and figures")
    parser.add_argument("--tasks", nargs="+", default=[*(task.name for task in HELD_OUT), *CHOSEN_ON])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help=f"for what has a repair, and for {DEFAULT}")
    options = parser.parse_args()
    console, rows, about = Console(stderr=True), list[Row](), dict[str, object]()
    options.out.mkdir(parents=True, exist_ok=True)
    for case in cases(options.tasks, options.shared, options.out.resolve(), console):
        about[case.name] = case.about
        for seed in options.seeds:
            for way in options.ways:
                # What is removed without a look at samples, or without a repair, is measured once.
                if seed == options.seeds[0] or "no repair" not in way:
                    found = measured(case, way, seed, options.out)
                    rows += found
                    said = ", ".join(f"{row['keep']:g}: {row['kept']:.1%}" for row in found)
                    console.print(f"{case.name}, {way}, seed {seed}: {said}", highlight=False)
    Console(width=200).print(table_of(rows, options.seeds))
    result = json.dumps({"budgets": KEEPS, "tasks": about, "rows": rows})
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "headlines.json").write_text(result + "\n", encoding="utf-8")
    print(result)


if __name__ == "__main__":
    main()
