"""The decoders that are pruned: SmolLM2 on the handbook, and for the final table a small one that is trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.decoders.cells import Subject
from benchmarks.decoders.judging import Judge
from benchmarks.decoders.model import smollm2
from benchmarks.decoders.texts import TEXTS, blocks_of, texts_of, write_handbook
from benchmarks.small_models import SMALL_MODELS, prepare
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import PruneSpec

# The small decoder has positions for so many tokens.
_SHORT, _SHORT_BLOCKS = 64, 48


def smollm2_subject(out: Path, model: Path | None, calibration: dict[str, Any]) -> Subject:
    """Return SmolLM2-135M-Instruct.

    Args:
        out: Folder for the model and the packages.
        model: Folder of the converted model; None: it is made of its package.
        calibration: Fields of the spec's calibration; empty: the default's.
    """
    folder = smollm2(out) if model is None else model.resolve()
    fields: dict[str, Any] = {
        "model": str(folder),
        "task": {"type": "text-generation", "metric": "perplexity", "columns": {"text": ["text"]}},
        "data": str(write_handbook(out / "handbook", out / "packages")),
        **({"calibration": calibration} if calibration else {}),
    }
    dense = load_task_model(folder, "text-generation", torch.device("cpu"))
    blocks = {
        text.name: blocks_of(dense.tokenizer, texts_of(text, out / "handbook", out / "packages"), text.blocks, text.length)
        for text in TEXTS
    }
    return Subject("SmolLM2-135M-Instruct", fields, Judge.of(dense, _spec(fields).task, blocks))


def small_subject(out: Path, shared: Path, calibration: dict[str, Any], told: Callable[[str], None]) -> Subject:
    """Train a Llama of four layers to go on from a number in words to its digits, unless it is there, and return it."""
    small = next(own for own in SMALL_MODELS if own.name == "llama")
    task = prepare(small, shared, out / "small", told)
    folder, data = out / "small" / small.name, Path(task.pop("dataset"))
    fields = {"model": str(folder), "task": task, "data": str(data), **({"calibration": calibration} if calibration else {})}
    dense = load_task_model(folder, "text-generation", torch.device("cpu"))
    lines = [json.loads(line)["line"] for line in (data / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    blocks = {"numbers": blocks_of(dense.tokenizer, lines, _SHORT_BLOCKS, _SHORT)}
    return Subject("small Llama", fields, Judge.of(dense, _spec(fields).task, blocks))


def _spec(fields: dict[str, Any]) -> PruneSpec:
    return PruneSpec.model_validate({**fields, "target": {"metric": "macs", "keep": 0.8}})
