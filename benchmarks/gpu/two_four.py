"""Products with 2:4 weights, by torch's semi-structured tensors, beside dense ones in the same type."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.nn import functional as F  # noqa: N812

from benchmarks.gpu.models import LLAMA_1B, TINY, in_turns, llama
from benchmarks.gpu.parts import Emit, Setting
from pruning_core.arch.adapter import adapt
from pruning_core.measure.sparse_products import FormRefused, SparseLinear, product, proven_form, to_form

# Outputs and inputs of the projections and FFNs of Llama 1B and 7B.
SHAPES = ((2048, 2048), (8192, 2048), (2048, 8192), (4096, 4096), (11008, 4096), (4096, 11008))
TOKENS = (16, 256, 4096)


def measure(setting: Setting, emit: Emit) -> None:
    """Time single products by shape and tokens, then a whole model with 2:4 in every matrix."""
    device = torch.device(setting.device)
    for dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for outputs, inputs in ((64, 128),) if setting.dry else SHAPES:
            weight = two_of_four(torch.randn(outputs, inputs, device=device, dtype=dtype))
            for tokens in (16,) if setting.dry else TOKENS:
                x = torch.randn(tokens, inputs, device=device, dtype=dtype)
                emit(f"{outputs} x {inputs}, {tokens} tokens, {name}", **_times(weight, x, setting))
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        emit(f"whole Llama 1B, 8 x 512, {name}", **_whole(setting, dtype))


def two_of_four(weight: torch.Tensor) -> torch.Tensor:
    """Set the two smaller of every four weights of a row to zero."""
    blocks = weight.unflatten(1, (-1, 4))
    kept = torch.zeros_like(blocks).scatter_(2, blocks.abs().topk(2, dim=2).indices, 1)
    return (blocks * kept).flatten(1).contiguous()


def _times(weight: torch.Tensor, x: torch.Tensor, setting: Setting) -> dict[str, Any]:
    try:
        with torch.inference_mode():
            sparse, _ = proven_form(weight, None, x, "2:4")
    except FormRefused as problem:
        return {"refused": str(problem)}
    calls = (lambda: F.linear(x, weight), lambda: product(x, sparse, None))
    dense_ms, sparse_ms = in_turns(calls, x.device, setting.repeats)
    return {"dense_ms": dense_ms, "sparse_ms": sparse_ms, "speedup": dense_ms / sparse_ms}


def _whole(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    device = torch.device(setting.device)
    size = TINY if setting.dry else LLAMA_1B
    model, sparse = llama(size, setting, dtype), llama(size, setting, dtype)
    with torch.inference_mode():
        refused = sum(not _replaced_(sparse, path) for path in list(adapt(sparse).linears))
    ids = torch.randint(5, size.words, (size.batch, size.length), device=device)
    calls = (lambda: model(input_ids=ids).logits, lambda: sparse(input_ids=ids).logits)
    dense_ms, sparse_ms = in_turns(calls, device, max(2, setting.repeats // 2))
    return {"dense_ms": dense_ms, "sparse_ms": sparse_ms, "speedup": dense_ms / sparse_ms, "left_dense": refused}


def _replaced_(model: Any, path: str) -> bool:
    """Replace a matrix by its 2:4 form; return False, and leave it, where that is refused."""
    weight = two_of_four(cast("torch.Tensor", model.get_submodule(path).weight))
    try:
        stored, _ = to_form(weight, "2:4")
    except FormRefused:
        return False
    own = SparseLinear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    own.weight = torch.nn.Parameter(stored, requires_grad=False)
    model.set_submodule(path, own)
    return True
