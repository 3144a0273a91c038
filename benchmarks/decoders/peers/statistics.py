"""One pass of the dense model over the calibration samples, with the statistics of all peers that do not change it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.evidence.context import Evidence
from pruning_core.machine.precision import products_in
from pruning_core.shapes import Bool, Float


@dataclass(slots=True)
class Sums:
    """Sums over the real tokens of what one output projection reads.

    Attributes:
        value: Of the channels.
        square: Of their squares.
        norm: Over samples, of each channel's norm over the tokens of the sample.
    """

    value: Float[Tensor, " k"]
    square: Float[Tensor, " k"]
    norm: Float[Tensor, " k"]

    def add_(self, read: Float[Tensor, "b s k"], real: Bool[Tensor, "b s"]) -> None:
        """Add a batch."""
        own = read.float() * real[..., None]
        squares = own.square().sum(1)
        self.value += own.sum((0, 1))
        self.square += squares.sum(0)
        self.norm += squares.sqrt().sum(0)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What peers know of the dense model.

    Attributes:
        sums: For each sublayer, of what its output projection reads.
        likeness: For each block the mean cosine, over tokens, of what it reads and what it gives.
        tokens: Number of real tokens.
        samples: Number of samples.
    """

    sums: tuple[Sums, ...]
    likeness: Float[Tensor, " blocks"]
    tokens: int
    samples: int

    def mean(self, index: int) -> Float[Tensor, " k"]:
        """Return the mean of each channel that a sublayer's output projection reads."""
        return self.sums[index].value / self.tokens

    def variance(self, index: int) -> Float[Tensor, " k"]:
        """Return the variance of each such channel over the tokens."""
        own = self.sums[index]
        return (own.square - own.value.square() / self.tokens).clamp_min(0) / max(1, self.tokens - 1)

    def norm(self, index: int) -> Float[Tensor, " k"]:
        """Return the mean over samples of each such channel's norm over the tokens."""
        return self.sums[index].norm / self.samples


def gather(evidence: Evidence) -> Statistics:
    """Run the dense model."""
    dense = evidence.dense
    sums = tuple(Sums(*(torch.zeros(own.width, dtype=torch.float64) for _ in range(3))) for own in dense.sublayers)
    likeness = torch.zeros(len(dense.blocks), dtype=torch.float64)
    tokens = 0
    with torch.no_grad(), products_in(evidence.dtype, dense.model.device):
        for batch in evidence.calibration.batches:
            with _watched(dense, sums, likeness, batch.real):
                dense.model.base_model(**batch.inputs)
            tokens += int(batch.real.sum())
    return Statistics(sums, likeness / tokens, tokens, evidence.calibration.samples)


def _watched(dense: ModelAdapter, sums: tuple[Sums, ...], likeness: Tensor, real: Tensor) -> ExitStack:
    stack = ExitStack()

    def reads(own: Sums) -> Callable[..., None]:
        return lambda _module, args: own.add_(args[0], real)

    def gives(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: object) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output if isinstance(output, Tensor) else output[0]  # pyright: ignore[reportIndexIssue]
            cosine = nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)
            likeness[layer] += float(cosine[real].sum())

        return hook

    for sublayer, own in zip(dense.sublayers, sums, strict=True):
        stack.callback(sublayer.output.register_forward_pre_hook(reads(own)).remove)
    for layer, block in enumerate(dense.blocks):
        stack.callback(block.register_forward_hook(gives(layer), with_kwargs=True).remove)
    return stack
