"""``make bench-evaluation``: what intervals, tests and "where it hurts" cost beside the evaluation itself.

Both ways judge two models on the same rows of ``../shared``, in turns and in one process: *plain* runs them and computes the
metric alone, as Coppice did before it said how sure it is; *with proof* is what a job does. Prints a table; the last line of
stdout is one JSON object, which is written to benchmarks/results/evaluation.json too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED, shared_model
from pruning_core.data.labels import placed
from pruning_core.data.read import read_rows
from pruning_core.data.rows import Rows
from pruning_core.data.table import ROLES
from pruning_core.evidence.calibration import batched, evaluation_tokens
from pruning_core.measure.quality import Evaluator, observe
from pruning_core.models.load import load_task_model
from pruning_core.report.quality import QualityReport
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import finding_of
from pruning_core.tasks.base import Observed, TaskModel

RESULTS = Path(__file__).with_name("results") / "evaluation.json"
_NOISE = 0.02  # of each weight's own size, so that some answers change


def changed_copy(folder: Path, task: str) -> TaskModel:
    """Load a model and change its weights a little: it stands for a pruned one of full size, the slowest to evaluate."""
    model = load_task_model(folder, task, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.mul_(torch.empty_like(weight).normal_(1, _NOISE, generator=generator))
    return model


def plain(spec: PruneSpec, dense: TaskModel, pruned: TaskModel, validation: Rows) -> QualityReport:
    """Evaluate both models by the metric alone."""
    encoded = dense.family.encode(dense, validation, dense.longest(spec.evaluation.max_length))
    tokens = batched(encoded, batch_tokens=evaluation_tokens(dense.device, dense.entries), keep=encoded.kept)
    of_dense, of_pruned = (observe(model, tokens, spec.task, lambda _step: None) for model in (dense, pruned))
    judged = pruned.family.judge(
        Observed(of_dense, of_pruned, encoded, validation), finding_of(spec.task.type, spec.task.metric)
    )
    return pruned.family.scored(spec.task, judged)


def row_of(shared: Path, task: str, repeats: int) -> dict[str, Any]:
    """Time both ways in turns on one task."""
    folder = shared_model(shared, task)
    spec = PruneSpec.model_validate(
        {
            "model": str(folder),
            "task": f"glue/{task}",
            "data": str(shared / "data" / "glue" / task),
            "target": {"metric": "macs", "keep": 0.5},
        }
    )
    dense, pruned = load_task_model(folder, spec.task.type, torch.device("cpu")), changed_copy(folder, spec.task.type)
    splits = [dense.family.prepared(dense, read_rows(spec.task, role)) for role in ROLES]
    _train, validation = placed(spec.task, splits, dense.classes)
    seconds: dict[str, list[float]] = {"plain": [], "with_proof": []}
    for _turn in range(repeats + 1):
        began = time.perf_counter()
        alone = plain(spec, dense, pruned, validation)
        between = time.perf_counter()
        quality = Evaluator(spec, dense, validation).compare(pruned, lambda _step: None)
        seconds["plain"].append(between - began)
        seconds["with_proof"].append(time.perf_counter() - between)
        assert (alone.dense, alone.pruned) == (quality.dense, quality.pruned), "both ways judge the same"
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first turn warms up
    return {
        "task": task,
        "metric": spec.task.metric,
        "rows": len(validation),
        **medians,
        "ratio": medians["with_proof"] / medians["plain"],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "stsb"])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = [row_of(options.shared, task, options.repeats) for task in options.tasks]
    table = Table("task", "metric", "rows", "plain, s", "with proof, s", "ratio", title="Evaluation of two models")
    for row in rows:
        seconds = [f"{row[name]:.2f}" for name in ("plain", "with_proof")]
        table.add_row(row["task"], row["metric"], str(row["rows"]), *seconds, f"{row['ratio']:.3f}")
    Console().print(table)
    found = {"threads": torch.get_num_threads(), "repeats": options.repeats, "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
