"""What the width of FFNs is worth: a Llama whose FFNs keep a share of their neurons, rounded down to steps or odd."""

from __future__ import annotations

import torch

from benchmarks.gpu.models import LLAMA_1B, TINY, beside, llama, neurons_left
from benchmarks.gpu.parts import Emit, Setting
from pruning_core.arch.adapter import clone
from pruning_core.arch.cut import slice_

KEEPS = (0.75, 0.5)
STEPS = (1, 8, 64, 128)
SHAPES = ((1, 1), (1, 512), (8, 512))


def measure(setting: Setting, emit: Emit) -> None:
    """Time the dense and the sliced model in turns, by type, share, step and shape."""
    device, size = torch.device(setting.device), TINY if setting.dry else LLAMA_1B
    steps = (1, 8) if setting.dry else STEPS
    for dtype in (torch.bfloat16, torch.float16):
        name, dense = str(dtype).removeprefix("torch."), llama(size, setting, dtype)
        for keep in KEEPS:
            for step in steps:
                width = _width(round(keep * size.neurons), step)
                pruned = clone(dense)
                slice_(pruned, neurons_left(dense, width))
                for batch, length in ((1, 1), (2, 8)) if setting.dry else SHAPES:
                    ids = torch.randint(5, size.words, (batch, length), device=device)
                    figures = beside((dense, pruned), ids, setting.repeats)
                    emit(f"{name}, {width} of {size.neurons} neurons ({_said(step)}), {batch} x {length}", **figures)


def _width(wanted: int, step: int) -> int:
    """Return a width that is a multiple of the step; for step 1 an odd one, since the share itself is aligned here."""
    return wanted - 1 | 1 if step == 1 else wanted // step * step


def _said(step: int) -> str:
    return "odd" if step == 1 else f"a multiple of {step}"
