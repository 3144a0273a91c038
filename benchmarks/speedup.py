"""``make bench-speedup``: speed and memory of pruned checkpoints, over batch sizes and lengths.

The pipeline prunes each model to half of its MACs at 128 tokens (SST-2 sentences, joined until they are that long). The dense
and the written pruned checkpoint are timed in turns after a warm-up; times are medians of the repeats. ``macs_keep`` is the
requested share of MACs. ``achieved`` is the share of the blocks' MACs that stayed, counted at the row's own length.
``efficiency`` is ``achieved`` times the speed-up: the part of the reduction that becomes speed (1: all of it). Memory is the
growth of the resident set of a process of its own, from before loading to the peak of one forward pass. Prints a table and, as
the last line of stdout, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED, random_bert_base, shared_model
from pruning_core.arch.adapter import adapt
from pruning_core.budgets import kept_macs
from pruning_core.measure.latency import measure_latency
from pruning_core.models.load import load_task_model
from pruning_core.report.report import LayerReport
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import LatencySpec, PruneSpec
from pruning_core.tasks.base import TaskModel

KEEP = 0.5
SHAPES = ((1, 16), (1, 128), (8, 16), (8, 128), (32, 16), (32, 128))
MEMORY_SHAPE = (8, 128)

_MEMORY = """
import sys, torch
from pathlib import Path
import transformers.models.bert.modeling_bert, pruning_core
from pruning_core.models.load import load_task_model
def peak():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
torch.set_num_threads(int(sys.argv[4]))
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what came before
before = peak()
model = load_task_model(Path(sys.argv[1]), "text-classification", torch.device("cpu"))
ids = torch.full((int(sys.argv[2]), int(sys.argv[3])), 5)
with torch.inference_mode():
    model.outputs({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
print(peak() - before)
"""


def long_sentences(shared: Path, folder: Path, rows: int = 512) -> Path:
    """Write joined SST-2 sentences that are certainly longer than 128 tokens."""
    folder.mkdir()
    for split in ("train", "validation"):
        table = pq.read_table(shared / "data" / "glue" / "sst2" / f"{split}.parquet")
        texts, labels = table.column("sentence").to_pylist(), table.column("label").to_pylist()
        count = min(rows, len(texts) // 12)
        joined = [" ".join(texts[12 * row : 12 * row + 12] * 3) for row in range(count)]
        pq.write_table(pa.table({"sentence": joined, "label": labels[:count]}), folder / f"{split}.parquet")
    return folder


def prune(name: str, model: Path, data: Path, layout: str, out: Path) -> tuple[LayerReport, ...]:
    """Prune to half of the MACs. Random weights need no recovery and no good choice of units: only their widths matter."""
    spec = {
        "model": str(model),
        "task": "glue/sst2",
        "data": str(data),
        "target": {"metric": "macs", "keep": KEEP},
        "artifacts": {"layout": layout},
        "evaluation": {"max_samples": 64},
        "latency": {"repeats": 3},
        "calibration": {"samples": 256},
    }
    if name != "minilm":
        spec |= {"method": "magnitude", "recovery": {"kind": "none"}, "calibration": {"samples": 64}}
    return run(PruneSpec.model_validate(spec), out, device="cpu").layers


def inference_memory(folder: Path, shape: tuple[int, int], threads: int) -> float:
    """Return the megabytes that loading a model and one forward pass take, in a process of their own."""
    command = [sys.executable, "-c", _MEMORY, str(folder), *map(str, shape), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) / 1024


def time_shapes(
    name: str, dense: TaskModel, pruned: TaskModel, layers: tuple[LayerReport, ...], threads: int, repeats: int
) -> list[dict[str, object]]:
    groups = adapt(dense.model).groups
    kept = [count for layer in layers for count in (layer.kept_heads, layer.kept_neurons)]
    rows: list[dict[str, object]] = []
    for batch, length in SHAPES:
        few = max(3, min(repeats, repeats * 1024 // (batch * length)))
        spec = LatencySpec(batch=batch, length=length, threads=threads, repeats=few)
        found = measure_latency(dense, pruned, spec, torch.Generator().manual_seed(0), lambda _repeat: None)
        print(f"{name} {batch} x {length}: {found.speedup:.2f}x", file=sys.stderr, flush=True)  # the whole takes minutes
        achieved = kept_macs(groups, kept, length) / kept_macs(groups, [group.size for group in groups], length)
        rows.append(
            {
                "model": name,
                "batch": batch,
                "length": length,
                "macs_keep": KEEP,
                "achieved": achieved,
                "speedup": found.speedup,
                "efficiency": found.speedup * achieved,
                "dense_ms": found.dense,
                "pruned_ms": found.pruned,
                "dense_iqr": found.dense_iqr,
                "pruned_iqr": found.pruned_iqr,
                "repeats": found.repeats,
                "threads": found.threads,
            }
        )
    return rows


def print_table(rows: list[dict[str, object]], memory: dict[str, dict[str, float]], threads: int) -> None:
    table = Table(
        title=f"Half of the MACs, {threads} CPU thread{'s' * (threads > 1)}; medians, interquartile ranges in brackets"
    )
    for heading in ("model", "batch", "length", "MACs", "dense ms", "pruned ms", "faster", "arrives"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["model"]),
            str(row["batch"]),
            str(row["length"]),
            f"{row['achieved']:.3f}",
            f"{row['dense_ms']:.0f} ({row['dense_iqr']:.1f})",
            f"{row['pruned_ms']:.0f} ({row['pruned_iqr']:.1f})",
            f"{row['speedup']:.2f}x",
            f"{row['efficiency']:.2f}",
        )
    console = Console()
    console.print(table)
    for name, found in memory.items():
        batch, length = MEMORY_SHAPE
        sizes = f"{found['dense']:.0f} MB dense, {found['pruned']:.0f} MB pruned"
        console.print(f"memory of inference, {name}, {batch} x {length}: {sizes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--models", nargs="+", choices=["minilm", "bert-base"], default=["minilm", "bert-base"])
    parser.add_argument("--layout", choices=["per_layer", "stock"], default="per_layer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="of the smaller shapes; the larger ones get fewer")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    memory: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = long_sentences(options.shared, folder / "data")
        for name in options.models:
            source = (
                shared_model(options.shared, "sst2") if name == "minilm" else random_bert_base(folder / "bert", options.shared)
            )
            out = folder / f"{name}-pruned"
            layers = prune(name, source, data, options.layout, out)
            dense, pruned = (load_task_model(path, "text-classification", torch.device("cpu")) for path in (source, out))
            rows += time_shapes(name, dense, pruned, layers, options.threads, options.repeats)
            memory[name] = {
                which: inference_memory(path, MEMORY_SHAPE, options.threads)
                for which, path in (("dense", source), ("pruned", out))
            }
    print_table(rows, memory, options.threads)
    print(json.dumps({"rows": rows, "memory_mb": memory, "layout": options.layout, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
