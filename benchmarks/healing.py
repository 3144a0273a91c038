"""``make bench-healing``: pruned models as the repair leaves them, and healed, on held-out rows and texts of both domains.

* sst2: the classifier of ``../shared`` at 0.3 and 0.2 of its multiply-accumulates, judged on all validation rows.
* smollm2: SmolLM2-135M-Instruct at 0.8, healed on Debian's handbook and its own texts, judged on the handbook's held-out files
  (in domain) and on RFCs and manual pages, which nothing is calibrated or healed on.

A budget in minutes is of the machine as it is; on a busy one give ``--steps``. The seconds of processor time are told beside.
Each cell is kept in ``--out``: an interrupted run goes on where it was. Prints a table and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.decoders.subjects import smollm2_subject
from benchmarks.models import SHARED, shared_model
from pruning_core.data.read import read_rows
from pruning_core.evidence.calibration import batched
from pruning_core.models.load import load_task_model
from pruning_core.report.progress import Progress
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel

RESULTS = Path(__file__).resolve().parent / "results"
DRAWS = 2000
PLAIN, HEALED = "repaired", "healed"
CPU = torch.device("cpu")


class Subject(Protocol):
    """A dense model, and what it is judged on."""

    name: str
    fields: dict[str, Any]
    keeps: tuple[float, ...]
    minutes: float

    def judged(self, model: TaskModel) -> dict[str, list[float]]:
        """Return for each set of rows one number a row, whose mean is the figure."""
        ...


@dataclass(frozen=True)
class Sst2:
    """Accuracy on the validation rows."""

    shared: Path
    name: str = "sst2"
    keeps: tuple[float, ...] = (0.3, 0.2)
    minutes: float = 10

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the spec."""
        data = self.shared / "data" / "glue" / "sst2"
        return {"model": str(shared_model(self.shared, "sst2")), "task": "glue/sst2", "data": str(data)}

    def judged(self, model: TaskModel) -> dict[str, list[float]]:
        """Return whether each row is right."""
        spec = PruneSpec.model_validate({**self.fields, "sparsity": 0.5})
        rows = read_rows(spec.task, "validation")
        found = [0.0] * len(rows)
        for batch in batched(model.family.encode(model, rows, 128), batch_tokens=1024).batches:
            with torch.inference_mode():
                right = model.outputs(batch.inputs).argmax(-1) == batch.labels
            for row, own in zip(batch.rows.tolist(), right.tolist(), strict=True):
                found[row] = float(own)
        return {"validation": found}


class SmolLM2:
    """Log-perplexity of blocks of each text."""

    name = "smollm2"
    keeps = (0.8,)
    minutes = 15.0

    def __init__(self, out: Path, model: Path | None) -> None:
        """Make the model and the texts, unless they are there."""
        subject = smollm2_subject(out, model, {})
        self.fields, self._judge = subject.fields, subject.judge

    def judged(self, model: TaskModel) -> dict[str, list[float]]:
        """Return the mean loss of each block's tokens, of the texts that choices may be made on."""
        texts = self._judge.judged(model)["texts"]
        return {
            name: [lost / own["tokens"] for lost in own["lost"]]
            for name, own in texts.items()
            if name in ("handbook", "rfc", "manual")
        }


def digest_of_training() -> str:
    """Return a digest of the sources that healing depends on."""
    core = Path(__file__).resolve().parents[1] / "pruning_core"
    found = hashlib.sha256()
    for path in sorted([*(core / "training").glob("*.py"), core / "spec" / "healing.py"]):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def cell(subject: Subject, keep: float, heal: dict[str, Any] | None, seed: int, out: Path) -> dict[str, Any]:
    """Return the figures of one checkpoint: pruned, healed if that is asked for, written, loaded back, judged."""
    own = json.dumps([subject.name, keep, heal, seed, digest_of_training() if heal else ""])
    place = out / "cells" / f"{subject.name}-{keep}-{hashlib.sha256(own.encode()).hexdigest()[:12]}.json"
    if place.is_file():
        return json.loads(place.read_text(encoding="utf-8"))
    spec = PruneSpec.model_validate(
        {
            **subject.fields,
            "target": {"metric": "macs", "keep": keep},
            "recovery": {"heal": heal or "none"},
            "seed": seed,
            "evaluation": {"max_samples": 64},
            "latency": {"repeats": 3, "batch": 1, "length": 32},
        }
    )
    cpu_s: list[float] = []

    def clocked(progress: Progress) -> None:
        if progress.stage == "train":
            cpu_s.append(time.process_time())

    with tempfile.TemporaryDirectory(dir=out) as scratch:
        bundle = Path(scratch) / "bundle"
        report = run(spec, bundle, device="cpu", scratch=out / "scratch", on_progress=clocked)
        judged = subject.judged(load_task_model(bundle, spec.task.type, CPU))
    found = {
        "keep": keep,
        "seed": seed,
        "judged": judged,
        "macs": report.macs.pruned / report.macs.dense,
        "healing": None if report.healing is None else report.healing.model_dump(mode="json"),
        "cpu_s": cpu_s[-1] - cpu_s[0] if cpu_s else 0.0,
        "threads": torch.get_num_threads(),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(found), encoding="utf-8")
    return found


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of paired values with the ends of its 95 % interval, rows drawn again."""
    drawn = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def share_back(dense: np.ndarray, plain: np.ndarray, healed: np.ndarray) -> tuple[float, float, float]:
    """Return the share of what pruning lost that healing brought back, with the ends of its 95 % interval."""
    drawn = np.random.default_rng(0).integers(0, len(dense), (DRAWS, len(dense)))
    shares = (plain[drawn].mean(1) - healed[drawn].mean(1)) / (plain[drawn].mean(1) - dense[drawn].mean(1))
    low, high = np.quantile(shares, [0.025, 0.975])
    return float((plain.mean() - healed.mean()) / (plain.mean() - dense.mean())), float(low), float(high)


def rows_of(dense: dict[str, list[float]], plain: dict[str, Any], healed: dict[str, Any], subject: str) -> list[dict[str, Any]]:
    """Return a row for each set of rows that a checkpoint is judged on."""
    rows: list[dict[str, Any]] = []
    for name, own in dense.items():
        before, after = np.array(plain["judged"][name]), np.array(healed["judged"][name])
        rows.append(
            {
                "subject": subject,
                "macs_keep": plain["keep"],
                "seed": plain["seed"],
                "judged_on": name,
                "rows": len(own),
                "dense": float(np.mean(own)),
                PLAIN: float(before.mean()),
                HEALED: float(after.mean()),
                "change": interval(after - before),
                "share_back": share_back(np.array(own), before, after),
                "steps": healed["healing"]["steps"],
                "best_step": healed["healing"]["best_step"],
                "held_out": healed["healing"]["held_out"],
                "seconds": healed["healing"]["seconds"],
                "cpu_s": healed["cpu_s"],
                "threads": healed["threads"],
            }
        )
    return rows


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return the table. Of a classifier the figures are accuracies, of a decoder nats a token."""
    table = Table(title="Pruned, repaired, healed; change and share of the loss that came back with 95 % intervals over rows")
    for heading in ("model, MACs", "judged on", "dense", PLAIN, HEALED, "change", "brought back", "steps", "s", "CPU s"):
        table.add_column(heading, justify="right")
    for row in rows:
        change, back = row["change"], row["share_back"]
        table.add_row(
            f"{row['subject']}, {row['macs_keep']:g}",
            f"{row['judged_on']} ({row['rows']})",
            *(f"{row[name]:.4f}" for name in ("dense", PLAIN, HEALED)),
            f"{change[0]:+.4f} ({change[1]:+.4f} to {change[2]:+.4f})",
            f"{back[0]:.0%} ({back[1]:.0%} to {back[2]:.0%})",
            f"{row['best_step']} of {row['steps']}",
            f"{row['seconds']:.0f}",
            f"{row['cpu_s']:.0f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--out", type=Path, default=RESULTS / "healing", help="folder for models, texts and cells")
    parser.add_argument("--model", type=Path, default=None, help="folder of SmolLM2-135M-Instruct, if it is converted already")
    parser.add_argument("--subjects", nargs="+", default=["sst2", "smollm2"], choices=["sst2", "smollm2"])
    parser.add_argument("--keeps", nargs="+", type=float, default=None, help="shares of the multiply-accumulates")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=None, help="budget; 10 for sst2, 15 for smollm2")
    parser.add_argument("--steps", type=int, default=None, help="steps in place of the budget")
    parser.add_argument("--heal", type=json.loads, default={}, help='other fields of recovery.heal, as JSON: {"hidden": 1}')
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    rows: list[dict[str, Any]] = []
    for name in options.subjects:
        subject: Subject = Sst2(options.shared.resolve()) if name == "sst2" else SmolLM2(options.out, options.model)
        dense = subject.judged(load_task_model(Path(subject.fields["model"]), _type(subject), CPU))
        length = {"steps": options.steps} if options.steps else {"minutes": options.minutes or subject.minutes}
        heal = {"kind": "distil", **length, **options.heal}
        for keep in options.keeps or subject.keeps:
            for seed in options.seeds:
                plain, healed = (cell(subject, keep, own, seed, options.out) for own in (None, heal))
                rows += rows_of(dense, plain, healed, name)
                Console(stderr=True, width=200).print(table_of(rows[-len(dense) :]))
    Console(width=200).print(table_of(rows))
    result = json.dumps({"rows": rows})
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "healing.json").write_text(result + "\n", encoding="utf-8")
    print(result)


def _type(subject: Subject) -> Any:
    return PruneSpec.model_validate({**subject.fields, "sparsity": 0.5}).task.type


if __name__ == "__main__":
    main()
