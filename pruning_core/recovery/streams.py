"""Streams: hidden states of each calibration batch on their way through the layers, dense model and student side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.arch.encoder import Sublayer
from pruning_core.evidence import Evidence
from pruning_core.shapes import Bool, Float, Int
from pruning_core.shelf import Shelf, Slot
from pruning_core.stats.gram import Gram, GramSums
from pruning_core.stats.inputs import InputSums


@dataclass(slots=True)
class Stream:
    """One batch between two sublayers.

    Attributes:
        real: True at real tokens, (batch, length).
        fit: Flat indices of the real tokens of samples that are fitted.
        judge: Flat indices of the real tokens of held-out samples.
        student: The student's hidden states, (batch, length, d), in the format that the plan of states says.
        teacher: The dense model's hidden states; None where its sums were kept.
        sums: Its kept residual sums, one a sublayer; None where it runs along.
        features: The student's features at the present sublayer, while there is room for them.
    """

    real: Bool[Tensor, "b s"]
    fit: Int[Tensor, " n"]
    judge: Int[Tensor, " m"]
    student: Slot
    teacher: Slot | None
    sums: Sequence[Float[Tensor, "b s d"]] | None
    features: Float[Tensor, "b s k"] | None = None

    def target(self, index: int, dense: Sublayer) -> Float[Tensor, "b s d"]:
        """Give the dense model's residual sum at a sublayer, and move its stream past it where it runs along."""
        if self.sums is not None:
            return self.sums[index].float()
        assert self.teacher is not None, "a stream has kept sums or a running teacher"
        hidden = self.teacher.read().float()
        total = hidden + dense.output(dense.features(hidden, self.real))
        self.teacher.write(dense.norm(total))
        return total

    def dense_hidden(self, index: int, before: Sublayer | None) -> Float[Tensor, "b s d"]:
        """Give the dense model's hidden states at a sublayer, before its `target` moves past it.

        Args:
            index: Of the sublayer.
            before: The dense sublayer before it, whose norm ends its kept sums; None for the first.
        """
        if self.teacher is not None:
            return self.teacher.read().float()
        if before is None:
            return self.student.read().float()  # both start from the same embeddings
        assert self.sums is not None, "a stream has kept sums or a running teacher"
        return before.norm(self.sums[index - 1].float())


class Streams:
    """The streams of all batches."""

    def __init__(
        self, evidence: Evidence, shelf: Shelf, *, samples: int, first_judge: int, gram_dtype: torch.dtype | None = None
    ) -> None:
        """Embed every batch, or take what was recorded.

        Args:
            evidence: Dense model and calibration batches.
            shelf: Where the streams lie.
            samples: Rows from here on are left out.
            first_judge: Rows from here on are held out.
            gram_dtype: Format of the products of Grams, where it is to be finer than that of the features.
        """
        self._dtype = evidence.dtype if gram_dtype is None else gram_dtype
        self._spare = evidence.states.plan.spare
        count = len(evidence.calibration.batches)
        opened = (_open(evidence, index, shelf, samples=samples, first_judge=first_judge) for index in range(count))
        self._streams = [stream for stream in opened if len(stream.real)]

    def gather(self, index: int, dense: Sublayer, pruned: Sublayer) -> tuple[Gram, Gram]:
        """Compute the statistics of one sublayer's least squares, of the samples that are fitted and of those that judge.

        ``X`` are the student's features, ``B`` what its output projection should give: the dense residual sum less the
        student's own residual stream.
        """
        k, d = pruned.output.in_features, pruned.output.out_features
        device = pruned.output.weight.device
        fit, judge = (GramSums(k, d, self._dtype, device) for _ in range(2))
        spare = self._spare
        for stream in self._streams:
            hidden = stream.student.read().float()
            B = (stream.target(index, dense) - hidden).flatten(0, 1)
            features = pruned.features(hidden, stream.real)
            X = features.flatten(0, 1)
            fit.add_(X, B, stream.fit)
            judge.add_(X, B, stream.judge)
            spare -= features.nbytes
            stream.features = features if spare >= 0 else None
        return fit.result(), judge.result()

    def gather_inputs(self, index: int, before: Sublayer | None, width: int) -> tuple[InputSums, InputSums]:
        """Compute the moments of what enters a sublayer, student beside dense model, for fitting and for judging.

        To be called before `gather` of the same sublayer.
        """
        device = self._streams[0].real.device
        fit, judge = InputSums(width, self._dtype, device), InputSums(width, self._dtype, device)
        for stream in self._streams:
            student = stream.student.read().float().flatten(0, 1)
            dense = stream.dense_hidden(index, before).flatten(0, 1)
            fit.add_(student, dense, stream.fit)
            judge.add_(student, dense, stream.judge)
        return fit, judge

    def skip(self, index: int, dense: Sublayer) -> None:
        """Move the dense model past a sublayer that the student has not."""
        for stream in self._streams:
            if stream.sums is None:
                stream.target(index, dense)

    def advance(self, pruned: Sublayer) -> None:
        """Move the student past a sublayer."""
        for stream in self._streams:
            hidden = stream.student.read().float()
            features = pruned.features(hidden, stream.real) if stream.features is None else stream.features
            stream.features = None
            stream.student.write(pruned.norm(hidden + pruned.output(features)))


def _open(evidence: Evidence, index: int, shelf: Shelf, *, samples: int, first_judge: int) -> Stream:
    dense, states = evidence.dense, evidence.states
    batch = evidence.calibration.batches[index].to(dense.model.device)
    sums, embedded = states.sums(index), states.embedded(index)
    if embedded is None:
        embedded = dense.embed(batch.inputs)
    chosen = (batch.rows < samples).nonzero().flatten()
    if len(chosen) < len(batch.rows):
        embedded = embedded[chosen]
        sums = None if sums is None else [kept[chosen] for kept in sums]
    real, held_out = batch.real[chosen], (batch.rows[chosen] >= first_judge)[:, None]
    return Stream(
        real=real,
        fit=(real & ~held_out).flatten().nonzero().flatten(),
        judge=(real & held_out).flatten().nonzero().flatten(),
        student=shelf.keep(embedded),
        teacher=None if sums is not None else shelf.keep(embedded),
        sums=sums,
    )
