"""What the scripts of packages share. It runs in their environments, which have torch and transformers and nothing of ours."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class Given:
    """What a script is given.

    Attributes:
        model: The dense model, in float32.
        tokens: The calibration samples' tokens.
        options: All options.
    """

    model: Any
    tokens: list[list[int]]
    options: argparse.Namespace

    @property
    def rows(self) -> list[torch.Tensor]:
        """Return each sample as a batch of one."""
        return [torch.tensor([own]) for own in self.tokens]

    def write(self, model: Any, *, macs: float, seconds: dict[str, float], packages: tuple[str, ...]) -> None:
        """Write the pruned checkpoint in bfloat16 with the dense model's tokenizer, and what there is to know of it."""
        folder = Path(self.options.out)
        model.to(torch.bfloat16).save_pretrained(folder)
        AutoTokenizer.from_pretrained(self.options.model).save_pretrained(folder)
        versions = {name: importlib.metadata.version(name) for name in (*packages, "torch", "transformers")}
        result = {"macs": macs, "seconds": seconds, "versions": versions}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def given(parser: argparse.ArgumentParser) -> Given:
    """Read the options, the model and the tokens."""
    for name in ("model", "tokens", "out", "setting"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", type=float, required=True, help="mean tokens of a sample, at which MACs are counted")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    return Given(model, json.loads(Path(options.tokens).read_text(encoding="utf-8")), options)


def macs_with(config: Any, neurons: int, length: float) -> float:
    """Count the multiply-accumulates of a Llama's blocks for one sequence, if every FFN has so many neurons."""
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    linears = config.hidden_size * (2 * queries + 2 * keys + 3 * neurons)
    return config.num_hidden_layers * (length * linears + 2 * length**2 * queries)


def macs_of_zeros(model: Any, length: float) -> float:
    """Return the share of the multiply-accumulates that is left if products with zeros are skipped."""
    whole = macs_with(model.config, model.config.intermediate_size, length)
    zeros = sum(int((own.weight == 0).sum()) for own in model.model.layers.modules() if isinstance(own, torch.nn.Linear))
    return 1 - length * zeros / whole
