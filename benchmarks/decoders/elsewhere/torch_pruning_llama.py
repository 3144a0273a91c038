"""Torch-Pruning on a Llama: neurons of all FFNs, as many in each, by its group importance (magnitude, or Taylor).

Its example for language models narrows the residual stream and drops heads as well. Heads in groups of three that share a key
and a value, as this model has, are more than it can drop, and a narrower stream takes the tied embeddings with it: neurons
alone are what it can be asked for here.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
import torch_pruning as tp
from common import Given, given, macs_with


def main() -> None:
    """Prune, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--importance", choices=["magnitude", "taylor"], required=True)
    got = given(parser)
    model, config = got.model, got.model.config
    whole = macs_with(config, config.intermediate_size, got.options.length)
    limit = float(got.options.setting) * whole * (1 + 1e-9)
    neurons = max(n for n in range(1, config.intermediate_size + 1) if macs_with(config, n, got.options.length) <= limit)
    began = time.perf_counter()
    if got.options.importance == "taylor":
        _gradients(got)
        importance: Any = tp.importance.GroupTaylorImportance()
    else:
        importance = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean")
    ffns = [layer.mlp for layer in model.model.layers]
    narrowed = {own for ffn in ffns for own in (ffn.gate_proj, ffn.up_proj)}
    others = [own for own in model.modules() if isinstance(own, torch.nn.Linear) and own not in narrowed]
    model.config.use_cache = False
    pruner = tp.pruner.BasePruner(
        model,
        example_inputs=got.rows[0],
        importance=importance,
        pruning_ratio=1 - neurons / config.intermediate_size,
        ignored_layers=[*others, model.model.embed_tokens],
        output_transform=lambda output: output.logits,
    )
    pruner.step()
    widths = {ffn.gate_proj.out_features for ffn in ffns}
    (config.intermediate_size,) = widths
    config.use_cache = True
    seconds = {"prune": time.perf_counter() - began}
    macs = macs_with(config, config.intermediate_size, got.options.length) / whole
    got.write(model.requires_grad_(False), macs=macs, seconds=seconds, packages=("torch-pruning",))


def _gradients(got: Given) -> None:
    """Accumulate the gradients of the loss of next tokens on all samples."""
    got.model.requires_grad_(True)
    for row in got.rows:
        (got.model(input_ids=row, labels=row).loss / len(got.rows)).backward()


if __name__ == "__main__":
    main()
