"""A random model many blocks deep, and jobs on it under a limit of memory."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import tiny
from tests.memory_limit import Limited, run_limited


@dataclass(frozen=True)
class Size:
    """Widths and depth of a model."""

    blocks: int
    hidden: int
    neurons: int


def write_deep_model(folder: Path, size: Size, *, shard_mb: int = 100) -> int:
    """Write a random Llama in bfloat16, with its tokenizer, and give its number of parameters."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=80,
        hidden_size=size.hidden,
        intermediate_size=size.neurons,
        num_hidden_layers=size.blocks,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        num_labels=2,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=f"{shard_mb}MB")
    tiny.write_tokenizer(folder)
    return model.num_parameters()


def deep_spec(model: Path, data: Path, weights: str, **changes: Any) -> dict[str, Any]:
    """Give a spec with few samples: what is shown does not depend on them."""
    return {
        "model": str(model),
        "task": "glue/sst2",
        "data": str(data),
        "target": {"metric": "macs", "keep": 0.5},
        "memory": {"weights": weights},
        "calibration": {"samples": 64, "max_length": 32, "memory_mb": 32},
        "evaluation": {"max_samples": 64},
        "latency": {"batch": 1, "length": 16, "repeats": 3},
        "artifacts": {"shard_mb": 50},
        **changes,
    }


def run_job(spec: dict[str, Any], out: Path, limit: int | None) -> tuple[Limited, dict[str, Any] | None]:
    """Make ``coppice run`` of a spec in a control group, and give its report where it has one."""
    path = out.with_suffix(".json")
    path.write_text(json.dumps(spec), encoding="utf-8")
    command = [sys.executable, "-m", "coppice.cli", "run", "--spec", str(path), "--out", str(out), "--device", "cpu"]
    done = run_limited(command, limit)
    report = out / "report.json"
    return done, json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None
