"""Latency of an encoder of BERT-base's size without half of its units, in float32, float16 and bfloat16."""

from __future__ import annotations

import dataclasses

import torch

from benchmarks.gpu.parts import Emit, Setting
from benchmarks.reach_models import CATALOGUE, RealSize
from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.measure.latency import measure_latency
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import LatencySpec

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 6000}
SHAPES = ((1, 128), (8, 128), (32, 128), (32, 512))


def bert(setting: Setting) -> RealSize:
    """Return BERT-base's size, or a tiny one for a dry run."""
    own = CATALOGUE["bert-base"]
    return dataclasses.replace(own, options=SMALL) if setting.dry else own


def measure(setting: Setting, emit: Emit) -> None:
    """Time the dense and the sliced model in turns, by type and shape."""
    folder = bert(setting).write(setting.folder / "bert")
    dense = load_task_model(folder, "text-classification", torch.device(setting.device))
    kept = [torch.arange(group.size) < group.size // 2 for group in adapt(dense.model).groups]
    sliced = clone(dense.model)
    slice_(sliced, Mask(tuple(kept)))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        models = [dense.with_model(clone(own).to(dtype)) for own in (dense.model, sliced)]
        for batch, length in ((2, 16),) if setting.dry else SHAPES:
            spec = LatencySpec(batch=batch, length=length, repeats=max(3, setting.repeats))
            found = measure_latency(*models, spec, torch.Generator().manual_seed(0), lambda _repeat: None)
            emit(
                f"{str(dtype).removeprefix('torch.')}, {batch} x {found.length}",
                dense_ms=found.dense,
                pruned_ms=found.pruned,
                speedup=found.speedup,
                dense_iqr=found.dense_iqr or 0.0,
            )
