"""Sublayers as reports name them, each with the outcome of its repair. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from pruning_core.report.report import LayerReport, SolverStatus, SublayerReport

# A residual below this is rounding error: there is nothing to repair.
_NOTHING = 1e-3


@dataclass(frozen=True, slots=True)
class ReportedSublayer:
    """One sublayer.

    Attributes:
        name: Its name, such as ``layer 3 FFN`` or ``decoder layer 1 cross-attention``.
        report: The report of its repair.
        pruned: Whether units were removed from it.
    """

    name: str
    report: SublayerReport
    pruned: bool

    @property
    def status(self) -> str:
        """The outcome of the repair, in words."""
        tried = self.report.status == "skipped" and self.report.residual_before is not None
        if tried or (self.report.status == "rejected" and not self.lost):
            return "nothing to repair"
        return words_of(self.report.status)

    @property
    def failed(self) -> bool:
        """Whether weights were left unrepaired although pruning had changed the output."""
        return is_failed(self.report.status) or (self.report.status == "rejected" and self.lost)

    @property
    def lost(self) -> bool:
        """Whether pruning changed the output, so that there was something to repair."""
        before = self.report.residual_before
        return self.pruned or before is None or before >= _NOTHING


def words_of(status: SolverStatus) -> str:
    """Say how the repair of a sublayer, or the selection and refit of a matrix, went."""
    match status:
        case "converged" | "breakdown" | "rejected" | "skipped" | "stagnated":
            return status
        case "jittered":
            return "singular, solved with a ridge"
        case "max_iterations":
            return "all steps taken"
        case "non_finite":
            return "given NaN or infinity"
        case _:
            assert_never(status)


def is_failed(status: SolverStatus) -> bool:
    """Tell whether a solver failed, so that weights were left unrepaired."""
    match status:
        case "breakdown" | "non_finite":
            return True
        case "converged" | "jittered" | "stagnated" | "max_iterations" | "rejected" | "skipped":
            return False
        case _:
            assert_never(status)


def matrix_words(status: SolverStatus) -> str:
    """Say how the selection and refit of a matrix went."""
    return "refit gained nothing" if status == "rejected" else words_of(status)


def reported_sublayers(layers: Sequence[LayerReport]) -> Iterator[ReportedSublayer]:
    """Yield the sublayers of all layers, in order. Layers with cross-attention are a decoder's and follow the encoder's."""
    encoder = sum(layer.cross is None for layer in layers) if any(layer.cross is not None for layer in layers) else 0
    for index, layer in enumerate(layers):
        name = f"layer {layer.layer + 1}"
        if encoder:
            name = f"encoder layer {index + 1}" if index < encoder else f"decoder layer {index - encoder + 1}"
        yield ReportedSublayer(f"{name} attention", layer.attention, layer.kept_heads < layer.dense_heads)
        if layer.cross is not None:
            yield ReportedSublayer(
                f"{name} cross-attention", layer.cross.attention, layer.cross.kept_heads < layer.cross.dense_heads
            )
        yield ReportedSublayer(f"{name} FFN", layer.ffn, layer.kept_neurons < layer.dense_neurons)


def heads_of(layers: Sequence[LayerReport]) -> tuple[int, int]:
    """Count the kept heads and the dense model's heads, those of cross-attention included."""
    both = [own for layer in layers for own in (layer, layer.cross) if own is not None]
    return sum(own.kept_heads for own in both), sum(own.dense_heads for own in both)
