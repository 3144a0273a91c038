"""llm-compressor's SparseGPT and Wanda, 2:4 in every linear but the head, with its defaults."""

from __future__ import annotations

import argparse
import time

from common import given, macs_of_zeros
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

MODIFIERS = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}


def main() -> None:
    """Prune, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modifier", choices=list(MODIFIERS), required=True)
    got = given(parser)
    recipe = MODIFIERS[got.options.modifier](sparsity=0.5, mask_structure=got.options.setting, ignore=["lm_head"])
    data = Dataset.from_dict({"input_ids": got.tokens, "attention_mask": [[1] * len(own) for own in got.tokens]})
    began = time.perf_counter()
    oneshot(
        model=got.model,
        dataset=data,
        recipe=recipe,
        num_calibration_samples=len(got.tokens),
        max_seq_length=max(map(len, got.tokens)),
        pipeline="sequential",
    )
    seconds = {"prune": time.perf_counter() - began}
    macs = macs_of_zeros(got.model, got.options.length)
    for name in ("quantization_config", "sparsity_config"):
        if hasattr(got.model.config, name):
            delattr(got.model.config, name)
    got.write(got.model, macs=macs, seconds=seconds, packages=("llmcompressor",))


if __name__ == "__main__":
    main()
