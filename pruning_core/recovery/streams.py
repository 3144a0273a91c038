"""Streams: hidden states of each calibration batch on their way through the layers, dense model and student side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.sublayer import BlockContext, Sublayer
from pruning_core.evidence.cache import ActivationCache, CacheEntry
from pruning_core.evidence.context import Evidence
from pruning_core.shapes import Bool, Float, Int
from pruning_core.stats.gram import Gram, GramSums
from pruning_core.stats.input_sums import InputSums


@dataclass(slots=True)
class Stream:
    """One batch between two sublayers.

    Attributes:
        contexts: What the model's own code gives each of the dense blocks beside the hidden states.
        fit: Flat indices of the real tokens of samples that are fitted.
        judge: Flat indices of the real tokens of held-out samples.
        student: The student's hidden states, (batch, length, d), in the format that the plan of states says.
        teacher: The dense model's hidden states; None where its sums were kept.
        sums: Its kept residual sums, one a sublayer; None where it runs along.
        held_out: True at samples that judge.
        decoder: The input of a decoder that follows, twice.
        dense_contexts: What the dense model's blocks are given, where that is something else: another encoder's output.
        features: The student's features at the present sublayer, while there is room for them.
    """

    contexts: tuple[BlockContext, ...]
    fit: Int[Tensor, " n"]
    judge: Int[Tensor, " m"]
    student: CacheEntry
    teacher: CacheEntry | None
    sums: Sequence[Float[Tensor, "b s d"]] | None
    held_out: Bool[Tensor, " b"]
    decoder: tuple[CacheEntry, CacheEntry] | None = None
    dense_contexts: tuple[BlockContext, ...] = ()
    features: Float[Tensor, "b s k"] | None = None

    def target(self, index: int, dense: Sublayer, student: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Give what the student's output projection should give, and move the dense model past it where that runs along.

        That is the dense model's residual sum less the student's own residual stream; where a norm stands between the
        projection and the sum, what the dense model's projection gives.
        """
        if self.sums is not None:
            return self.sums[index].float() - student
        assert self.teacher is not None, "a stream has kept sums or a running teacher"
        hidden = self.teacher.read().float()
        features = dense.features(hidden, (self.dense_contexts or self.contexts)[dense.layer])
        total = dense.total(hidden, features)
        self.teacher.write(dense.close(total))
        return total - student if dense.inner is None else dense.output(features).float()

    def dense_hidden(self, index: int, before: Sublayer | None) -> Float[Tensor, "b s d"]:
        """Give the dense model's hidden states at a sublayer, before its `target` moves past it.

        Args:
            index: Of the sublayer.
            before: The dense sublayer before it, which says what follows its kept sums; None for the first.
        """
        if self.teacher is not None:
            return self.teacher.read().float()
        if before is None:
            return self.student.read().float()  # both start from the same embeddings
        assert self.sums is not None, "a stream has kept sums or a running teacher"
        return before.close(self.sums[index - 1].float())


class Streams:
    """The streams of all batches."""

    def __init__(
        self,
        evidence: Evidence,
        cache: ActivationCache,
        *,
        samples: int,
        first_judge: int,
        gram_dtype: torch.dtype | None = None,
    ) -> None:
        """Embed every batch, or take what was recorded.

        Args:
            evidence: Dense model and calibration batches.
            cache: Where the streams lie.
            samples: Rows from here on are left out.
            first_judge: Rows from here on are held out.
            gram_dtype: Format of the products of Grams, where it is to be finer than that of the features.
        """
        self._dtype = evidence.dtype if gram_dtype is None else gram_dtype
        self._spare = evidence.states.plan.spare
        count = len(evidence.calibration.batches)
        opened = (_open(evidence, index, cache, samples=samples, first_judge=first_judge) for index in range(count))
        self._streams = [stream for stream in opened if stream is not None]

    def gather(self, index: int, dense: Sublayer, pruned: Sublayer, layer: int) -> tuple[Gram, Gram]:
        """Compute the statistics of one sublayer's least squares, of the samples that are fitted and of those that judge.

        ``X`` are the student's features, ``B`` what its output projection should give.

        Args:
            index: Of the dense sublayer.
            dense: That sublayer.
            pruned: The student's, which stands for it and for the ones before it that are gone.
            layer: Which block of the dense model the student's sublayer is a half of.
        """
        device = pruned.output.weight.device
        fit, judge = (GramSums(pruned.width, pruned.hidden, self._dtype, device) for _ in range(2))
        spare = self._spare
        for stream in self._streams:
            hidden = stream.student.read().float()
            B = stream.target(index, dense, hidden).flatten(0, 1)
            features = pruned.features(hidden, stream.contexts[layer])
            X = features.flatten(0, 1)
            fit.add_(X, B, stream.fit)
            judge.add_(X, B, stream.judge)
            spare -= features.nbytes
            stream.features = features if spare >= 0 else None
        return fit.result(), judge.result()

    def gather_inputs(self, index: int, before: Sublayer | None, dense: Sublayer) -> tuple[InputSums, InputSums]:
        """Compute the moments of what enters a sublayer, student beside dense model, for fitting and for judging.

        To be called before `gather` of the same sublayer.
        """
        device = dense.output.weight.device
        fit, judge = InputSums(dense.hidden, self._dtype, device), InputSums(dense.hidden, self._dtype, device)
        for stream in self._streams:
            # No method with patterns changes the norm that is read through.
            own = dense.read(stream.student.read().float()).flatten(0, 1)
            other = dense.read(stream.dense_hidden(index, before)).flatten(0, 1)
            fit.add_(own, other, stream.fit)
            judge.add_(own, other, stream.judge)
        return fit, judge

    def cross(self, dense: ModelAdapter, student: ModelAdapter) -> tuple[InputSums, InputSums]:
        """Move from the encoder to the decoder, which reads the encoder's output, each model's decoder its own encoder's.

        Returns:
            The moments of both outputs, for fitting and for judging.
        """
        hidden, device = dense.sublayers[0].hidden, dense.model.device
        fit, judge = InputSums(hidden, self._dtype, device), InputSums(hidden, self._dtype, device)
        for stream in self._streams:
            assert stream.teacher is not None, "the dense model runs along where there are two streams"
            assert stream.decoder is not None, "a decoder has an input"
            own, other = student.memory(stream.student.read().float()), dense.memory(stream.teacher.read().float())
            fit.add_(own.flatten(0, 1), other.flatten(0, 1), stream.fit)
            judge.add_(own.flatten(0, 1), other.flatten(0, 1), stream.judge)
            stream.dense_contexts = tuple(context.reading(other) for context in stream.contexts)
            stream.contexts = tuple(context.reading(own) for context in stream.contexts)
            stream.student, stream.teacher = stream.decoder
            stream.fit, stream.judge = _rows(stream.contexts[-1].real, stream.held_out)
        return fit, judge

    def skip(self, index: int, dense: Sublayer) -> None:
        """Move the dense model past a sublayer that the student has not."""
        for stream in self._streams:
            if stream.sums is None:
                stream.target(index, dense, stream.student.read().float())

    def advance(self, pruned: Sublayer, layer: int) -> None:
        """Move the student past a sublayer, a half of what is ``layer`` in the dense model."""
        for stream in self._streams:
            hidden = stream.student.read().float()
            kept = stream.features
            features = pruned.features(hidden, stream.contexts[layer]) if kept is None else kept
            stream.features = None
            stream.student.write(pruned.close(pruned.total(hidden, features)))


def _open(evidence: Evidence, index: int, cache: ActivationCache, *, samples: int, first_judge: int) -> Stream | None:
    """Put a batch's embeddings on the cache; None where all of its samples are left out."""
    dense, states = evidence.dense, evidence.states
    batch = evidence.calibration.batches[index].to(dense.model.device)
    chosen = (batch.rows < samples).nonzero().flatten()
    if not len(chosen):
        return None
    sums, embedded = states.sums(index), states.embedded(index)
    if sums is not None and len(chosen) < len(batch.rows):
        sums = [kept[chosen] for kept in sums]
    real, held_out = batch.real[chosen], batch.rows[chosen] >= first_judge
    trace = None if embedded is None else dense.plain_trace(embedded[chosen], real)
    if trace is None:
        trace = dense.trace({name: values[chosen] for name, values in batch.inputs.items()})
    fit, judge = _rows(real, held_out)
    return Stream(
        contexts=trace.contexts,
        fit=fit,
        judge=judge,
        student=cache.keep(trace.hidden),
        teacher=None if sums is not None else cache.keep(trace.hidden),
        sums=sums,
        held_out=held_out,
        decoder=None if trace.decoder is None else (cache.keep(trace.decoder), cache.keep(trace.decoder)),
    )


def _rows(real: Bool[Tensor, "b s"], held_out: Bool[Tensor, " b"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
    """Give the flat indices of real tokens, of samples that are fitted and of those that judge."""
    fit, judge = ((real & own[:, None]).flatten().nonzero().flatten() for own in (~held_out, held_out))
    return fit, judge
