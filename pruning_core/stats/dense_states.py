"""The dense model's hidden states for recovery: recorded by a scoring pass, found ready, or recorded by a pass of their own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from pruning_core.evidence.context import Context, Evidence
from pruning_core.machine.precision import products_in

# By where gradients are needed: from the activations of units on, from the outputs of linears on, or nowhere.
Pass = Literal["units", "linears", "forward"]


def ensure_states(ctx: Context, on_batch: Callable[[int], None], *, as_in: Pass) -> None:
    """See to it that the states of a run are there, and kept for later ones.

    Args:
        ctx: Dense model, evidence and kept statistics.
        on_batch: Called after each batch that has to run, with the number of finished batches.
        as_in: The pass that the states are to be from. Kernels of attention differ where gradients are needed, and with them
            the last bits.
    """
    states, key = ctx.evidence.states, {**ctx.evidence.key, "pass": as_in}
    if states.plan.batches == 0:
        return
    if not states.recorded:
        kept = ctx.statistics.recalled("states", key)
        if kept is not None:
            states.restore(kept)
            return
        _record(ctx, on_batch, as_in)
    ctx.statistics.keep("states", key, states.piece())


def _record(ctx: Context, on_batch: Callable[[int], None], as_in: Pass) -> None:
    """Run the dense model over the batches whose states are kept."""
    evidence, device = ctx.evidence, ctx.task_model.device
    with _needing_gradients(evidence, as_in), products_in(evidence.dtype, device):
        for index, batch in enumerate(evidence.calibration.batches[: evidence.states.plan.batches]):
            with evidence.states.recording(index):
                ctx.task_model.outputs(batch.to(device).inputs)
            on_batch(index + 1)


@contextmanager
def _needing_gradients(evidence: Evidence, as_in: Pass) -> Generator[None]:
    """Let gradients be needed inside the context where they are in a pass, and nowhere before."""
    if as_in == "forward":
        with torch.no_grad():
            yield
        return

    def enter(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_needed(args[0]), *args[1:])

    def leave(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        return _needed(output)

    with ExitStack() as stack, torch.enable_grad():
        if as_in == "units":
            for sublayer in evidence.dense.sublayers:
                stack.callback(sublayer.output.register_forward_pre_hook(enter).remove)
        else:
            for linear in evidence.dense.linears.values():
                stack.callback(linear.register_forward_hook(leave).remove)
        yield


def _needed(values: Tensor) -> Tensor:
    return values if values.requires_grad else values.detach().requires_grad_()
