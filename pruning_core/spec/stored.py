"""What goes with a target in bytes: a bundle that only our loader reads. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_core.spec.artifacts import ArtifactSpec
from pruning_core.spec.memory import MemorySpec
from pruning_core.spec.method import Method
from pruning_core.spec.targets import Target, any_rounds


def check_stored(targets: Sequence[Target], method: Method, artifacts: ArtifactSpec, memory: MemorySpec) -> None:
    """Refuse a target in bytes where its checkpoint can't be made, or can't be read.

    Raises:
        ValueError: A setting does not go with it; says what would.
    """
    if not any_rounds(targets):
        return
    if not method.prices_loss:
        raise ValueError(
            f"a target in bytes weighs units against rounding by what both cost in loss, and the scores of {method.name} are "
            "no loss: take method fisher-cg, or another target"
        )
    if artifacts.layout != "per_layer":
        raise ValueError(
            f"a target in bytes is written in artifacts.layout per_layer, whose loader reads integers, and this is "
            f"{artifacts.layout}: take per_layer, or another target"
        )
    others = [name for name in artifacts.formats if name != "safetensors"]
    if others or artifacts.engines:
        named = ", ".join([*others, *artifacts.engines])
        raise ValueError(
            f"a target in bytes is for weight files that transformers reads by our loader, and {named} can't: leave it out, or "
            "take another target"
        )
    if memory.weights == "paged":
        raise ValueError("a target in bytes rounds all of a model at once: set memory.weights to resident or auto")
