"""A tiny random Llama with calibration samples, as peers get them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.decoders.case import Case
from tests import tiny
from tests.families import ARCHITECTURES


def write_llama(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write a tiny Llama with texts; return the fields of its spec."""
    model = ARCHITECTURES["llama"].build("generation", **{"num_hidden_layers": 3, **changes})
    # A model whose sublayers give nothing out of the ordinary shows no difference between its units.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
    model.save_pretrained(folder / "llama")
    tiny.write_tokenizer(folder / "llama")
    tiny.write_jsonl(folder / "texts", rows=400)
    return {
        "model": str(folder / "llama"),
        "task": {"type": "text-generation", "metric": "perplexity", "columns": {"text": ["text"]}},
        "data": str(folder / "texts"),
        "calibration": {"samples": 24, "max_length": 32, "precision": "float32"},
        "seed": 0,
    }


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def case(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case.of(fields, tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def tokens() -> torch.Tensor:
    rng = random.Random(0)
    return torch.tensor([[rng.randrange(5, 15) for _ in range(20)] for _ in range(2)])
