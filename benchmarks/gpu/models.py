"""Random models for a GPU, made where they run, and texts of random tokens for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.parts import Setting
from pruning_core.arch.adapter import adapt
from pruning_core.arch.masks import Mask
from pruning_core.evidence.calibration import TokenSet
from pruning_core.evidence.context import Evidence
from pruning_core.evidence.states import DenseStates
from pruning_core.machine.precision import matmul_dtype
from pruning_core.machine.timing import timed
from pruning_core.measure.latency import warm_up
from pruning_core.spec.prune import CalibrationSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.registry import family_of


@dataclass(frozen=True)
class Size:
    """Widths and depth of a Llama, and how much text it is calibrated on."""

    hidden: int
    layers: int
    heads: int
    groups: int
    neurons: int
    words: int
    samples: int
    length: int
    batch: int

    def config(self) -> Any:
        """Return transformers' configuration."""
        from transformers import LlamaConfig

        return LlamaConfig(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            intermediate_size=self.neurons,
            vocab_size=self.words,
            max_position_embeddings=max(2048, self.length),
            tie_word_embeddings=self.groups < self.heads,
            pad_token_id=0,
        )


# Llama 3.2 1B and Llama 2 7B by their published widths.
LLAMA_1B = Size(2048, 16, 32, 8, 8192, 128256, samples=128, length=512, batch=8)
LLAMA_7B = Size(4096, 32, 32, 32, 11008, 32000, samples=64, length=512, batch=8)
TINY = Size(32, 2, 4, 2, 64, 67, samples=8, length=16, batch=4)


def llama(size: Size, setting: Setting, dtype: torch.dtype) -> Any:
    """Make a Llama with random weights on the device."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(setting.device):
            model = LlamaForCausalLM(size.config())
    finally:
        torch.set_default_dtype(before)
    return model.requires_grad_(requires_grad=False).eval()


def as_task(model: Any, folder: Path) -> TaskModel:
    """Return a text generator that no file is behind: nothing here reads texts."""
    return TaskModel(model, None, "text-generation", family_of("text-generation"), folder, "bfloat16")


def texts(size: Size) -> TokenSet:
    """Return batches of random tokens, each its own label as next tokens are."""
    generator = torch.Generator().manual_seed(0)
    batches: list[Batch] = []
    for first in range(0, size.samples, size.batch):
        count = min(size.batch, size.samples - first)
        ids = torch.randint(5, size.words, (count, size.length), generator=generator)
        batches.append(
            Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.arange(first, first + count), ids)
        )
    return TokenSet(tuple(batches), size.samples, size.samples * size.length, float(size.length), "random")


def evidence_of(model: TaskModel, size: Size) -> Evidence:
    """Return what a run gathers before it scores, by the defaults of a request."""
    options, adapter, tokens = CalibrationSpec(), adapt(model.model), texts(size)
    states = DenseStates(adapter, tokens.batches, options.memory_mb * 2**20)
    return Evidence(adapter, tokens, states, matmul_dtype(options.precision, model.device))


def neurons_left(model: Any, width: int) -> Mask:
    """Return the mask that keeps every head and the first ``width`` neurons of each FFN."""
    kept = [torch.ones(group.size, dtype=torch.bool) for group in adapt(model).groups]
    for own, group in zip(kept, adapt(model).groups, strict=True):
        if group.kind == "neuron":
            own[width:] = False
    return Mask(tuple(kept))


def in_turns(calls: Sequence[Callable[[], Tensor]], device: torch.device, repeats: int) -> list[float]:
    """Return the median milliseconds of each call; they take turns, after a warm-up."""
    times: list[list[float]] = [[] for _ in calls]
    with torch.inference_mode():
        for repeat in range(-warm_up(5 * repeats), repeats):
            for call, kept in zip(calls, times, strict=True):
                elapsed = timed(call, device)
                if repeat >= 0:
                    kept.append(elapsed)
    return [float(torch.tensor(own, dtype=torch.float64).median()) for own in times]


def beside(models: Sequence[Any], ids: Tensor, repeats: int) -> dict[str, float]:
    """Return the milliseconds of a dense and a pruned Llama on the same tokens, in turns, and their ratio."""
    calls = [lambda own=own: own(input_ids=ids, use_cache=False).logits for own in models]
    dense_ms, pruned_ms = in_turns(calls, ids.device, repeats)
    return {"dense_ms": dense_ms, "pruned_ms": pruned_ms, "speedup": dense_ms / pruned_ms}


def peak_gb(device: torch.device) -> float:
    """Return the largest memory that torch's allocator held since `forget_peak`, in GB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0


def forget_peak(device: torch.device) -> None:
    """Free what is not used, and start to measure the peak anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def clocked(device: torch.device, do: Callable[[], object]) -> float:
    """Return the seconds of something, until the device has finished."""
    return timed(do, device) / 1e3
