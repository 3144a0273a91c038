"""``make bench-memory``: peak memory of pruning a BERT-base on 2048 samples of 128 tokens, and the size of its weights.

The run is a process of its own, so that the peak is the run's alone. The share of the libraries, which any program with torch
and transformers needs, is measured in a process that only imports them. Prints a table and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.apart import run_apart
from benchmarks.models import SHARED, random_bert_base

_IMPORT = (
    "import torch, pruning_core.run.pipeline; from pruning_core.machine.environment import peak_memory; "
    "from transformers import BertForSequenceClassification; "
    "print(peak_memory(torch.device('cpu')))"
)


def write_texts(folder: Path, shared: Path, samples: int, tokens: int) -> None:
    """Write long samples: real sentences, joined until they are long enough."""
    import pyarrow.parquet as pq

    sentences = pq.read_table(shared / "data" / "glue" / "sst2" / "train.parquet").column("sentence").to_pylist()
    rng = random.Random(0)  # noqa: S311 - text for a benchmark, no secret
    folder.mkdir()
    for split, rows in (("train", samples), ("validation", 64)):
        lines = [{"sentence": " ".join(rng.choices(sentences, k=tokens // 4)), "label": row % 2} for row in range(rows)]
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--memory-mb", type=int, default=None, help="calibration.memory_mb; the default when left out")
    parser.add_argument("--device", default="", help="cpu or cuda; a GPU where there is one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = random_bert_base(Path(scratch) / "model", options.shared)
        write_texts(Path(scratch) / "data", options.shared, options.samples, options.length)
        memory = {} if options.memory_mb is None else {"memory_mb": options.memory_mb}
        spec = {
            "model": str(model),
            "task": "glue/sst2",
            "data": str(Path(scratch) / "data"),
            "target": {"metric": "macs", "keep": 0.5},
            "calibration": {"samples": options.samples, "max_length": options.length, **memory},
            "latency": {"repeats": 3},
        }
        weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
        libraries = int(_python(_IMPORT))
        done = run_apart(spec, Path(scratch) / "out", options.device)
    if done.report is None:
        sys.exit(done.problem)
    peak, tokens, device, seconds = done.peak, done.report.data.tokens, done.report.device, done.report.seconds.model_dump()
    beyond = peak - weights
    table = Table(title=f"BERT-base, {options.samples} samples, {tokens} tokens, {device}")
    table.add_column("")
    table.add_column("MB", justify="right")
    for name, value in (
        ("peak", peak),
        ("weights", weights),
        ("peak beyond the weights", beyond),
        ("libraries alone", libraries),
    ):
        table.add_row(name, f"{value / 2**20:.0f}")
    Console().print(table)
    row = {"peak": peak, "weights": weights, "beyond": beyond, "libraries": libraries, "tokens": tokens, "seconds": seconds}
    print(json.dumps({**row, "device": device}))


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
