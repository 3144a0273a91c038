"""Where a model's weights are while it is pruned, and what cannot be had without all of them in memory. Torch-free."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen


class MemorySpec(Frozen):
    """Where the model's weights are while it is pruned."""

    weights: Literal["auto", "resident", "paged"] = Field(
        default="auto",
        description="resident: all in memory. paged: those of one block at a time, read from the checkpoint's files, so that "
        "the model may be larger than the memory of its device; slower, and without what needs the whole model at once: "
        "targets of latency, the trained tier, ONNX and the compressed form. auto: paged where they would not fit.",
    )


def needs_all_weights(*, clocks: bool, trains: bool) -> str | None:
    """Say what of a job cannot be done with the weights of one block at a time; None where everything can.

    Args:
        clocks: Whether one of its targets is measured by a clock.
        trains: Whether its method trains.
    """
    if clocks:
        return "a target of latency is measured on the whole model"
    return "the trained tier trains the whole model" if trains else None


def check_paged(memory: MemorySpec, formats: Collection[str], *, clocks: bool, trains: bool) -> None:
    """Refuse at submit what cannot be done with the weights of one block at a time, where that is asked for.

    Raises:
        ValueError: Something cannot.
    """
    if memory.weights != "paged":
        return
    reason = needs_all_weights(clocks=clocks, trains=trains)
    if reason is not None:
        raise ValueError(f"{reason}, and memory.weights is paged: leave memory.weights at auto or resident")
    for name, what in (("onnx", "an ONNX graph"), ("compressed", "the compressed form")):
        if name in formats:
            raise ValueError(
                f"{what} is made of the whole model, and memory.weights is paged: leave {name} out of artifacts.formats"
            )
