"""The experts of a block in the files of a checkpoint, in one of the forms that checkpoints have. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pruning_core.arch.signatures import Mixture, StoredExperts


@dataclass(frozen=True, slots=True)
class FoundExperts:
    """The experts of a block: all of one shape, with one row of the router each.

    Attributes:
        form: The form that they are stored in.
        experts: Number of experts.
        hidden: Width of the residual stream.
        rows: Outputs of an expert's matrices that read the hidden states.
        columns: Inputs of its output projection. A bias of its outputs counts as one more, which reads its gate.
        biased: Whether the matrices that read the hidden states have biases.
        router_biased: Whether the router has.
    """

    form: StoredExperts
    experts: int
    hidden: int
    rows: int
    columns: int
    biased: bool
    router_biased: bool


def find_experts(shapes: Mapping[str, tuple[int, ...]], mixture: Mixture) -> FoundExperts | None:
    """Find the experts of a block.

    Args:
        shapes: Shape of each tensor of the block, by its name within the block.
        mixture: Where the experts are.

    Returns:
        The experts; None where there are none, where they differ, or where the block has or lacks an FFN beside them.
    """
    own, shared = shapes, mixture.shared
    if (shared is not None) != any(".shared_expert." in name for name in own):
        return None
    for form in mixture.stored:
        output, inputs = _of_all(own, form.output, form), [_of_all(own, path, form) for path in form.inputs]
        router = own.get(f"{form.router}.weight")
        if output is None or router is None:
            continue
        experts, hidden, width = output
        rows = sum(shape[1] for shape in inputs if shape is not None)
        fits = all(shape is not None and (shape[0], shape[2]) == (experts, hidden) for shape in inputs)
        if not fits or rows != 2 * width or router != (experts, hidden):
            return None
        columns = width + (f"{form.output}_bias" in own)
        biased, router_biased = f"{form.inputs[0]}_bias" in own, f"{form.router}.bias" in own
        return FoundExperts(form, experts, hidden, rows, columns, biased, router_biased)
    return None


def _of_all(own: Mapping[str, tuple[int, ...]], path: str, form: StoredExperts) -> tuple[int, int, int] | None:
    """Return the number of experts of a block, and the outputs and inputs of each; None where they have no such matrices."""
    if "{}" not in path:
        shape = own.get(path if form.bare else f"{path}.weight", ())
        if len(shape) != 3:
            return None
        experts, first, second = shape
        return (experts, second, first) if form.transposed else (experts, first, second)
    found: list[tuple[int, ...]] = []
    while (shape := own.get(f"{path.format(len(found))}.weight")) is not None:
        found.append(shape)
    if len(set(found)) != 1 or len(found[0]) != 2:
        return None
    return len(found), *found[0]
