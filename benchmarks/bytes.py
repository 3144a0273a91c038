"""``make bench-bytes``: one budget of bytes for widths and storage types, beside pruning alone and rounding alone.

Budgets are shares of the bytes that all tensors take in float16. At each of them:

- ``pruning``: widths alone, everything in float16;
- ``one type``: no unit goes, and every matrix is stored in the best type that fits, all in the same;
- ``types``: no unit goes, and each matrix gets a type of its own;
- ``both``: widths and types.

All are repaired and rounded by the same code. ``both`` is compared with the better of ``pruning`` and ``one type``, with a 95 %
interval over paired resamples of the validation rows (of blocks of text). Prints a table and, as the last line of stdout, one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.models import SHARED, shared_model
from pruning_core.errors import PruningError
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.models.load import load_task_model
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel

SMOLLM2 = Path(__file__).resolve().parents[2] / "models" / "smollm2"
TEXTS = Path(__file__).resolve().parents[2] / "out" / "decoders" / "handbook"
WAYS: dict[str, list[dict[str, Any]]] = {
    "pruning": [{"types": ["float"]}],
    "one type": [{"types": ["int8"], "widths": "keep"}, {"types": ["int4"], "widths": "keep"}],  # the first that fits
    "types": [{"widths": "keep"}],
    "both": [{}],
}
RESAMPLES = 2000
BLOCKS, BLOCK = 48, 256


@dataclass(frozen=True)
class Subject:
    """A model with its data, and how its answers are judged.

    Attributes:
        model: Folder of the model.
        spec: The request without its target.
        answers: Returns one row for each validation row: what `metric` reads of it.
        metric: Computes the quality of rows of answers; larger is better.
        name: Name of the metric.
    """

    model: Path
    spec: dict[str, Any]
    answers: Callable[[TaskModel], np.ndarray]
    metric: Callable[[np.ndarray], float]
    name: str


def glue(shared: Path, task: str, samples: int) -> Subject:
    import pyarrow.parquet as pq

    folder = shared / "data" / "glue" / task
    file = next(path for path in sorted(folder.rglob("*validation*")) if path.is_file())
    rows = pq.read_table(file).to_pylist() if file.suffix == ".parquet" else [json.loads(line) for line in file.open()]
    names = ("sentence",) if task == "sst2" else ("sentence1", "sentence2")
    labels = np.array([row["label"] for row in rows], dtype=float)

    def answers(model: TaskModel) -> np.ndarray:
        found = []
        with torch.inference_mode():
            for start in range(0, len(rows), 64):
                texts = [[row[name] for row in rows[start : start + 64]] for name in names]
                inputs = model.tokenizer(*texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
                found.append(model.outputs(inputs).float())
        outputs = torch.cat(found).numpy()
        return np.stack([outputs.argmax(1) if task == "sst2" else outputs[:, 0], labels], axis=1)

    def metric(own: np.ndarray) -> float:
        if task == "sst2":
            return float((own[:, 0] == own[:, 1]).mean())
        return float(spearmanr(own[:, 0], own[:, 1]).statistic)

    model = shared_model(shared, task)
    spec = {"model": str(model), "task": f"glue/{task}", "data": str(folder), "calibration": {"samples": samples}}
    return Subject(model, spec, answers, metric, "accuracy" if task == "sst2" else "Spearman")


def smollm2(model: Path, texts: Path, samples: int) -> Subject:
    """Return SmolLM2 on the handbook that `benchmarks.decoders` has written; judged by the loss of blocks of 256 tokens."""
    rows = [json.loads(line)["text"] for line in (texts / "validation.jsonl").open(encoding="utf-8")]

    def answers(found: TaskModel) -> np.ndarray:
        tokens = torch.tensor(found.tokenizer("\n\n".join(rows[:400]))["input_ids"])
        blocks = tokens[: BLOCKS * BLOCK].view(-1, BLOCK)
        losses = []
        with torch.inference_mode():
            for block in blocks.split(4):
                logits = found.outputs({"input_ids": block, "attention_mask": torch.ones_like(block)}).float()
                own = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), block[:, 1:], reduction="none")
                losses.append(own.mean(1))
        return torch.cat(losses).numpy()

    spec = {
        "model": str(model),
        "task": {"type": "text-generation", "dataset": str(texts), "columns": {"text": ["text"]}, "metric": "loss"},
        "calibration": {"samples": samples, "max_length": BLOCK},
    }
    return Subject(model, spec, answers, lambda own: -float(own.mean()), "-loss")


def build(subject: Subject, limit: int, way: str, seed: int) -> tuple[np.ndarray, Report] | str:
    """Run a way through the whole service's pipeline, and let its bundle answer; return why not where it can't."""
    reason = ""
    for own in WAYS[way]:
        target = {"metric": "bytes", "at_most": limit, **own}
        spec = PruneSpec.model_validate(
            {**subject.spec, "target": target, "seed": seed, "latency": {"repeats": 3}, "evaluation": {"max_samples": 64}}
        )
        with tempfile.TemporaryDirectory() as folder:
            try:
                report = run(spec, Path(folder) / "bundle", device="cpu")
            except PruningError as error:
                reason = str(error)
                continue
            model = load_task_model(Path(folder) / "bundle", spec.task.type, torch.device("cpu"))
            return subject.answers(model), report
    return reason


def interval(subject: Subject, left: np.ndarray, right: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two ways and its 95 % interval, over resamples of the rows that both answered."""
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(left), len(left)) for _ in range(RESAMPLES)]
    differences = np.array([subject.metric(left[rows]) - subject.metric(right[rows]) for rows in drawn])
    low, high = np.quantile(differences, [0.025, 0.975])
    return subject.metric(left) - subject.metric(right), float(low), float(high)


def judge(name: str, subject: Subject, share: float, seed: int) -> dict[str, Any]:
    """Build all ways at one budget."""
    limit = int(share * 2 * read_checkpoint(subject.model).parameters)
    row: dict[str, Any] = {"model": name, "share": share, "bytes": limit, "metric": subject.name, "seed": seed, "ways": {}}
    answers: dict[str, np.ndarray] = {}
    for way in WAYS:
        began = time.perf_counter()
        found = build(subject, limit, way, seed)
        if isinstance(found, str):
            row["ways"][way] = {"reason": found}
            continue
        answers[way], report = found
        row["ways"][way] = {
            "quality": subject.metric(answers[way]),
            "bytes": report.bytes.pruned,
            "parameters": report.parameters.pruned,
            "storage": None if report.storage is None else [own.model_dump() for own in report.storage.rows],
            "proof": report.acceptance is not None and report.acceptance.max_difference,
            "seconds": time.perf_counter() - began,
        }
        print(name, share, way, row["ways"][way], file=sys.stderr, flush=True)
    alone = [way for way in ("pruning", "one type") if way in answers]
    if "both" in answers and alone:
        best = max(alone, key=lambda way: row["ways"][way]["quality"])
        row["best_alone"], row["difference"] = best, interval(subject, answers["both"], answers[best])
    if "both" in answers and "types" in answers:
        row["difference_to_types"] = interval(subject, answers["both"], answers["types"])
    return row


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="One budget of bytes: quality of what is stored")
    for column in ("model", "bytes", "% of float16", *WAYS, "both - the better alone (95 %)", "both - types (95 %)"):
        table.add_column(column)
    for row in rows:
        cells = ["-" if "reason" in own else f"{own['quality']:.4f}" for own in row["ways"].values()]
        ends = [
            "-" if name not in row else f"{row[name][0]:+.4f} ({row[name][1]:+.4f} to {row[name][2]:+.4f})"
            for name in ("difference", "difference_to_types")
        ]
        table.add_row(f"{row['model']}, {row['metric']}", f"{row['bytes']:,}", f"{100 * row['share']:.0f}", *cells, *ends)
    Console(width=180).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--smollm2", type=Path, default=SMOLLM2, help="folder of SmolLM2-135M")
    parser.add_argument("--texts", type=Path, default=TEXTS, help="folder with texts, as `make bench-decoders` writes it")
    parser.add_argument("--models", nargs="+", default=["sst2", "stsb", "smollm2"], choices=["sst2", "stsb", "smollm2"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.4, 0.55, 0.7])
    parser.add_argument("--samples", type=int, default=512, help="calibration samples of MiniLM; SmolLM2 takes an eighth")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.models:
        if name == "smollm2":
            subject = smollm2(options.smollm2, options.texts, options.samples // 8)
        else:
            subject = glue(options.shared, name, options.samples)
        title = "SmolLM2-135M" if name == "smollm2" else f"MiniLM {name}"
        for share in options.shares:
            rows.append(judge(title, subject, share, options.seed))
            show(rows[-1:])  # a cell takes minutes
    show(rows)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
