"""NVIDIA ModelOpt's SparseGPT, 2:4 in every linear but the head, with its defaults: what it prunes without Megatron.

Minitron, its pruning of widths, is for Megatron's models; Puzzle wants several GPUs.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import modelopt.torch.sparsity as mts
import torch
from common import given, macs_of_zeros


def main() -> None:
    """Prune, and write the checkpoint."""
    got = given(argparse.ArgumentParser(description=__doc__))

    def run(model: Any) -> None:
        with torch.inference_mode():
            for row in got.rows:
                model(input_ids=row)

    began = time.perf_counter()
    model = mts.sparsify(got.model, "sparsegpt", config={"forward_loop": run})
    model = mts.export(model[0] if isinstance(model, tuple) else model)
    seconds = {"prune": time.perf_counter() - began}
    got.write(model, macs=macs_of_zeros(model, got.options.length), seconds=seconds, packages=("nvidia-modelopt",))


if __name__ == "__main__":
    main()
