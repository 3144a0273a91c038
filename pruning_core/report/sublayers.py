"""The halves of all layers as people are told of them: where each is, and how its repair went. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pruning_core.report.report import LayerReport, SublayerReport

# A residual below this is rounding: there is nothing to repair.
_NOTHING = 1e-3


@dataclass(frozen=True, slots=True)
class ReportedSublayer:
    """One half of a layer.

    Attributes:
        name: Such as ``layer 3 FFN``, or ``decoder layer 1 cross-attention``.
        report: Of its repair.
        pruned: Whether units of it are gone.
    """

    name: str
    report: SublayerReport
    pruned: bool

    @property
    def status(self) -> str:
        """How the repair went, in words."""
        if self.report.status == "rejected" and not self.lost:
            return "nothing to repair"
        return {"max_iterations": "all steps taken"}.get(self.report.status, self.report.status)

    @property
    def failed(self) -> bool:
        """Whether weights were left unrepaired that have lost something."""
        return self.report.status == "breakdown" or (self.report.status == "rejected" and self.lost)

    @property
    def lost(self) -> bool:
        """Whether there was something to repair."""
        before = self.report.residual_before
        return self.pruned or before is None or before >= _NOTHING


def reported_sublayers(layers: Sequence[LayerReport]) -> Iterator[ReportedSublayer]:
    """Give the halves of all layers, in order. Layers with cross-attention are a decoder's, which follow its encoder's."""
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
    """Count the heads that stayed, and those that there were, cross-attention's among them."""
    both = [own for layer in layers for own in (layer, layer.cross) if own is not None]
    return sum(own.kept_heads for own in both), sum(own.dense_heads for own in both)
