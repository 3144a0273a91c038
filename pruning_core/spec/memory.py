"""Memory: where a model's weights are kept while it is pruned, and what needs all of them at once. Torch-free."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen


class MemorySpec(Frozen):
    """Where the model's weights are kept while it is pruned."""

    weights: Literal["auto", "resident", "paged"] = Field(
        default="auto",
        description="resident: all weights in memory. paged: the weights of one block at a time, read from the checkpoint's "
        "files; the model may then be larger than its device's memory, but the job is slower and cannot do what needs the "
        "whole model: latency targets, the trained tier, healing, ONNX and the compressed form. auto: paged if they would not "
        "fit.",
    )


def needs_all_weights(*, clocks: bool, trains: bool, heals: bool) -> str | None:
    """Return why a job needs all weights in memory at once; None if it does not.

    Args:
        clocks: Whether one of the job's targets is measured by a clock.
        trains: Whether the job's method trains.
        heals: Whether the job heals.
    """
    if clocks:
        return "a target of latency is measured on the whole model"
    if trains:
        return "the trained tier trains the whole model"
    return "healing (recovery.heal) trains the whole model" if heals else None


def check_paged(memory: MemorySpec, formats: Collection[str], reason: str | None) -> None:
    """Refuse at submit a job that asks for paged weights and for something that needs all weights at once.

    Args:
        memory: Where the weights are kept.
        formats: Formats of the bundle.
        reason: Why the job needs all weights at once (`needs_all_weights`); None if it does not.

    Raises:
        ValueError: The job asks for both.
    """
    if memory.weights != "paged":
        return
    if reason is not None:
        raise ValueError(f"{reason}, and memory.weights is paged: leave memory.weights at auto or resident")
    made = {
        "onnx": "an ONNX graph is",
        "compressed": "the compressed form is",
        "compressed-tensors": "the quantised form is",
        "gguf": "GGUF files are",
        "openvino": "OpenVINO's form is",
    }
    for name, what in made.items():
        if name in formats:
            raise ValueError(
                f"{what} made of the whole model, and memory.weights is paged: leave {name} out of artifacts.formats"
            )
