"""``make bench-vocabulary``: the whole vocabulary beside a cut one, at the same number of parameters, on rows that neither saw.

A quarter of the validation rows decides nothing and gives no tokens: it is taken out of the data before the run, and judged
afterwards, by the bundles as users load them. So tokens of these rows may be gone, as in a service. Prints a table and, as the
last line of stdout, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.models import SHARED, shared_model
from pruning_core.errors import TargetUnreachable
from pruning_core.run.pipeline import run
from pruning_core.spec.glue import GLUE_TASKS
from pruning_core.spec.prune import PruneSpec

KEEPS = (0.7, 0.6, 0.5)
WAYS: dict[str, Any] = {"whole": None, "seen": "seen"}
_BATCH = 64
_RESAMPLES = 2000


def split(source: Path, folder: Path) -> list[dict[str, Any]]:
    """Copy a GLUE task's data without every fourth validation row. Return these rows."""
    folder.mkdir()
    held: list[dict[str, Any]] = []
    for path in sorted(source.glob("*.parquet")):
        rows = pq.read_table(path).to_pylist()
        if path.name.startswith("validation"):
            held = rows[::4]
            rows = [row for place, row in enumerate(rows) if place % 4]
        pq.write_table(pa.Table.from_pylist(rows), folder / path.name)
    return held


@torch.inference_mode()
def answers(folder: Path, texts: Sequence[Sequence[str]]) -> tuple[np.ndarray, int]:
    """Return a checkpoint's outputs on texts, as users get them, and how many tokens the texts became."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, trust_remote_code=True, dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found, tokens = [], 0
    for start in range(0, len(texts), _BATCH):
        columns = [list(column) for column in zip(*texts[start : start + _BATCH], strict=True)]
        inputs = tokenizer(*columns, padding=True, truncation=True, max_length=128, return_tensors="pt")
        tokens += int(inputs["attention_mask"].sum())
        found.append(model(**inputs).logits.numpy())
    return np.concatenate(found), tokens


def quality(task: str, outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return accuracy, or Spearman's rank correlation."""
    if task == "stsb":
        return float(spearmanr(outputs[:, 0], labels).statistic)
    return float((outputs.argmax(-1) == labels).mean())


def interval(task: str, ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval of the difference of two models' qualities, over paired resamples of the rows."""
    draws = np.random.default_rng(0).integers(0, len(labels), (_RESAMPLES, len(labels)))
    found = [quality(task, ours[own], labels[own]) - quality(task, theirs[own], labels[own]) for own in draws]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def judge(task: str, shared: Path, keeps: Sequence[float], work: Path) -> list[dict[str, Any]]:
    """Prune a shared model at each number of parameters, with both vocabularies, and judge all on the rows held out."""
    model, held = shared_model(shared, task), split(shared / "data" / "glue" / task, work / task)
    columns = GLUE_TASKS[f"glue/{task}"].as_task()["columns"]
    texts = [[row[name] for name in columns["text"]] for row in held]
    labels = np.array([row[columns["label"]] for row in held])
    dense, dense_tokens = answers(model, texts)
    found: list[dict[str, Any]] = []
    for keep in keeps:
        outputs: dict[str, np.ndarray] = {}
        for way, vocabulary in WAYS.items():
            spec = {"model": str(model), "task": f"glue/{task}", "data": str(work / task), "vocabulary": vocabulary}
            out = work / f"{task}-{keep}-{way}"
            try:
                report = run(PruneSpec.model_validate(spec | {"target": {"metric": "params", "keep": keep}}), out)
            except TargetUnreachable as error:
                found.append({"task": task, "keep": keep, "vocabulary": way, "unreachable": str(error)})
                continue
            outputs[way], tokens = answers(out, texts)
            found.append(
                {
                    "task": task,
                    "keep": keep,
                    "vocabulary": way,
                    "tokens": None if report.vocabulary is None else report.vocabulary.tokens_after,
                    "parameters": report.parameters.pruned / report.parameters.dense,
                    "bytes": report.bytes.pruned,
                    "macs": report.macs.pruned / report.macs.dense,
                    "quality": report.quality.pruned,
                    "dense": report.quality.dense,
                    "held_out": quality(task, outputs[way], labels),
                    "held_out_dense": quality(task, dense, labels),
                    "held_out_rows": len(labels),
                    "growth": tokens / dense_tokens,
                }
            )
        if "whole" in outputs:
            found[-1]["against_whole"] = interval(task, outputs["seen"], outputs["whole"], labels)
    return found


def main() -> None:
    """Parse the command line, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "stsb"])
    parser.add_argument("--keeps", nargs="+", type=float, default=list(KEEPS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = [row for task in options.tasks for row in judge(task, options.shared, options.keeps, Path(work))]
    table = Table(title="MiniLM: vocabulary and units under one number of parameters")
    headings = ("task", "parameters", "vocabulary", "tokens", "MB", "MACs", "quality", "held out", "dense there", "its tokens")
    for place, heading in enumerate((*headings, "against whole")):
        table.add_column(heading, justify="left" if place in (0, 2) else "right")
    for row in rows:
        if "unreachable" in row:
            table.add_row(row["task"], f"{row['keep']:g}", row["vocabulary"], "all", *["-"] * 6, "out of reach")
            continue
        low_high = row.get("against_whole")
        table.add_row(
            row["task"],
            f"{row['parameters']:.3f}",
            row["vocabulary"],
            "all" if row["tokens"] is None else f"{row['tokens']:,}",
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['macs']:.3f}",
            f"{row['quality']:.4f}",
            f"{row['held_out']:.4f}",
            f"{row['held_out_dense']:.4f}",
            f"{row['growth']:.3f}x",
            "" if low_high is None else f"{low_high[0]:+.4f} to {low_high[1]:+.4f}",
        )
    Console(width=140).print(table)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
