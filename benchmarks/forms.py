"""``make bench-forms``: size, time and quality of the further forms of a pruned checkpoint, on ``../shared``.

The model of sentences is pruned to half of its weights with every graph, and all are timed in turns on one thread, so that they
see the same state of the machine. With ``--decoder FOLDER --text FILE.jsonl`` a decoder is quantised in every kind, and its
perplexity on 30 blocks of 256 tokens stands beside that of the checkpoint itself.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.models import SHARED
from pruning_core.artifacts.exports.base import Exported
from pruning_core.artifacts.exports.compressed_tensors import export
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.artifacts import ArtifactSpec, Quantization
from pruning_core.spec.prune import PruneSpec

BATCH, LENGTH, TURNS = 8, 128, 30
BLOCKS, BLOCK = 30, 256
Pass = Callable[[], object]


def graphs(shared: Path, out: Path) -> list[tuple[str, float, float]]:
    """Prune, and return megabytes and milliseconds of each form."""
    source = shared / "models" / "minilm-sst2"
    data = shared / "data" / "glue" / "sst2"
    artifacts = {"formats": ["safetensors", "onnx", "openvino"], "onnx": ["stored", "int8"]}
    fields = {"model": str(source), "task": "glue/sst2", "data": str(data), "sparsity": 0.5, "artifacts": artifacts}
    report = run(PruneSpec.model_validate(fields), out, device="cpu")
    for row in report.exports:
        if row.status != "ok":
            Console().print(f"no {row.format} {row.kind}: {row.reason}")
    return timed(source, out)


def timed(source: Path, out: Path) -> list[tuple[str, float, float]]:
    """Return megabytes and milliseconds of each form: the least of the turns, since what else runs on a machine only adds."""
    ids = np.random.default_rng(0).integers(1000, 20000, (BATCH, LENGTH))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    passes: dict[str, tuple[Path, Pass]] = {
        "dense, PyTorch": (source / "model.safetensors", _torch(source, feed)),
        "pruned, PyTorch": (out / "model.safetensors", _torch(out, feed)),
        "pruned, ONNX": (out / "onnx" / "model.onnx", _onnx(out / "onnx" / "model.onnx", feed)),
        "pruned, ONNX int8": (out / "onnx" / "model_int8.onnx", _onnx(out / "onnx" / "model_int8.onnx", feed)),
        "pruned, OpenVINO": (out / "openvino" / "model.bin", _openvino(out / "openvino" / "model.xml", feed)),
    }
    times: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(-3, TURNS):
        for name, (_path, forward) in passes.items():
            began = time.perf_counter()
            forward()
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - began))
    return [(name, path.stat().st_size / 1e6, min(times[name])) for name, (path, _run) in passes.items()]


def _torch(folder: Path, feed: dict[str, Any]) -> Pass:
    model = load_task_model(folder, "text-classification", torch.device("cpu"))
    inputs = {name: torch.from_numpy(value) for name, value in feed.items()}

    def forward() -> object:
        with torch.inference_mode():
            return model.outputs(inputs)

    return forward


def _onnx(path: Path, feed: dict[str, Any]) -> Pass:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})


def _openvino(path: Path, feed: dict[str, Any]) -> Pass:
    import openvino

    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    return lambda: model({entry.any_name: feed[entry.any_name] for entry in model.inputs})


def quantised(source: Path, text: Path, scratch: Path) -> list[tuple[str, float, float]]:
    """Quantise a decoder, and return megabytes and perplexity of the checkpoint and of each kind."""
    folders = {"as stored": source} | {kind: _made(source, scratch / kind, kind) for kind in get_args(Quantization)}
    return [(name, _megabytes(folder), perplexity(folder, text)) for name, folder in folders.items() if folder is not None]


def _made(source: Path, folder: Path, kind: Quantization) -> Path | None:
    """Quantise a copy of a checkpoint; return the folder, or None where it is refused."""
    shutil.copytree(source, folder)
    model = load_task_model(folder, "text-generation", torch.device("cpu"))
    options = ArtifactSpec(formats=("safetensors", "compressed-tensors"), quantization=kind, layout="stock")
    (row,) = export(Exported(folder, model, model, options))
    if row.path is None:
        Console().print(f"no {kind}: {row.reason}")
    return None if row.path is None else folder / row.path


def perplexity(folder: Path, text: Path) -> float:
    """Return a checkpoint's perplexity, computed by stock transformers in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = (json.loads(line)["text"] for line in text.read_text(encoding="utf-8").splitlines())
    tokens = chain.from_iterable((*tokenizer(own)["input_ids"], tokenizer.eos_token_id) for own in texts)
    ids = list(islice(tokens, BLOCKS * BLOCK))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        losses = [float(model(input_ids=own, labels=own).loss) * len(own) for own in torch.tensor(ids).view(-1, BLOCK).split(6)]
    return math.exp(sum(losses) / BLOCKS)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6


def main() -> None:
    """Print one table or two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--decoder", type=Path, help="folder of a decoder to quantise")
    parser.add_argument("--text", type=Path, help="JSON Lines with a column text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables: list[tuple[str, list[tuple[str, float, float]]]] = []
    with tempfile.TemporaryDirectory(prefix="coppice-forms-") as scratch:
        if options.decoder is None:
            tables.append((f"least ms, {BATCH} x {LENGTH} tokens, 1 thread", graphs(options.shared, Path(scratch) / "bundle")))
        else:
            torch.set_num_threads(2)
            tables.append(("perplexity", quantised(options.decoder, options.text, Path(scratch))))
    for unit, rows in tables:
        table = Table("form", "MB", unit)
        for name, megabytes, figure in rows:
            table.add_row(name, f"{megabytes:.1f}", f"{figure:.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()
