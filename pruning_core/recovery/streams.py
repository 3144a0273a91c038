"""Streams: the hidden states of each calibration batch on their way through the layers of the dense model and the student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """The hidden states of one batch between two sublayers.

    Attributes:
        contexts: Arguments of each block beside the hidden states, from the dense model's own code.
        fit: Flat indices of the real tokens of fitted samples.
        judge: Flat indices of the real tokens of held-out samples.
        student: The student's hidden states, (batch, length, d) or twice as wide (`Sublayer.stream`), in the data type of the
            plan of states.
        teacher: The dense model's hidden states; None if its residual sums were kept.
        sums: The dense model's kept residual sums, one for each sublayer; None if the dense model runs beside the student.
        held_out: True at held-out samples.
        decoder: The input of a decoder that follows, for the student and for the dense model; None if there is no decoder.
        dense_contexts: The arguments of the dense model's blocks; empty if they are `contexts`. Decoders read the output of
            their own encoder.
        features: The student's features at the present sublayer, kept while there is room for them.
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

    def target(self, index: int, dense: Sublayer, student: Float[Tensor, "b s w"]) -> Float[Tensor, "b s d"]:
        """Return the target of the student's output projection. A dense model that runs beside is moved past the sublayer.

        The target is the dense model's residual sum less the student's residual stream. If a norm stands between the output
        projection and the sum, it is the output of the dense model's projection. What is added beside the units is part of it.
        """
        stream = dense.stream(student)
        if self.sums is not None:
            return self.sums[index].float() - stream
        assert self.teacher is not None, "a stream has kept sums or a running teacher"
        hidden = self.teacher.read().float()
        context = (self.dense_contexts or self.contexts)[dense.layer]
        features = dense.features(hidden, context)
        total = dense.total(hidden, features)
        self.teacher.write(dense.leave(hidden, total, context))
        return total - stream if dense.inner is None else dense.added(hidden, features).float()

    def dense_hidden(self, index: int, before: Sublayer | None) -> Float[Tensor, "b s w"]:
        """Return the dense model's hidden states before a sublayer. Call it before `target` of the same sublayer.

        Args:
            index: Index of the sublayer.
            before: The dense sublayer before it, whose norm follows the kept residual sum; None for the first sublayer.
        """
        if self.teacher is not None:
            return self.teacher.read().float()
        if before is None:
            return self.student.read().float()  # both start from the same embeddings
        assert self.sums is not None, "a stream has kept sums or a running teacher"
        return before.close(self.sums[index - 1].float())


class Streams:
    """The streams of all calibration batches."""

    def __init__(
        self,
        evidence: Evidence,
        cache: ActivationCache,
        *,
        samples: int,
        first_judge: int,
        gram_dtype: torch.dtype | None = None,
    ) -> None:
        """Embed every batch, or take its recorded states.

        Args:
            evidence: Dense model and calibration batches.
            cache: Activation cache that holds the streams.
            samples: Number of samples to use; rows from this one on are left out.
            first_judge: First held-out row; rows from it on are held out.
            gram_dtype: Data type of the products of Gram matrices; None: that of the evidence.
        """
        self._dtype = evidence.dtype if gram_dtype is None else gram_dtype
        self._spare = evidence.states.plan.spare
        count = len(evidence.calibration.batches)
        self._streams = [
            stream
            for index in range(count)
            for stream in _open(evidence, index, cache, samples=samples, first_judge=first_judge)
        ]

    def gather(self, index: int, dense: Sublayer, pruned: Sublayer, layer: int) -> tuple[Gram, Gram]:
        """Compute the least-squares statistics of one sublayer's output projection.

        ``X`` are the student's features, ``B`` is the target of its output projection.

        Args:
            index: Index of the dense sublayer.
            dense: The dense sublayer.
            pruned: The student's sublayer that stands for it, and for removed sublayers before it.
            layer: Block of the dense model that the student's sublayer comes from.

        Returns:
            The statistics of the fitted samples, and those of the held-out samples.
        """
        device = pruned.output.weight.device
        fit, judge = (GramSums(pruned.width, pruned.hidden, self._dtype, device) for _ in range(2))
        spare = self._spare
        for stream in self._streams:
            hidden = stream.student.read().float()
            target, beside = stream.target(index, dense, hidden), pruned.beside(hidden)
            B = (target if beside is None else target - beside).flatten(0, 1)
            features = pruned.features(hidden, stream.contexts[layer])
            X = features.flatten(0, 1)
            fit.add_(X, B, stream.fit)
            judge.add_(X, B, stream.judge)
            spare -= features.nbytes
            stream.features = features if spare >= 0 else None
        return fit.result(), judge.result()

    def gather_inputs(self, index: int, before: Sublayer | None, dense: Sublayer) -> tuple[InputSums, InputSums]:
        """Compute the moments of a sublayer's inputs in the student and the dense model. Call it before `gather`.

        Returns:
            The moments of the fitted samples, and those of the held-out samples.
        """
        device = dense.output.weight.device
        fit, judge = InputSums(dense.hidden, self._dtype, device), InputSums(dense.hidden, self._dtype, device)
        for stream in self._streams:
            # No method with patterns changes the norm before a sublayer, so the dense one serves the student too.
            own = dense.read(stream.student.read().float()).flatten(0, 1)
            other = dense.read(stream.dense_hidden(index, before)).flatten(0, 1)
            fit.add_(own, other, stream.fit)
            judge.add_(own, other, stream.judge)
        return fit, judge

    def cross(self, dense: ModelAdapter, student: ModelAdapter) -> tuple[InputSums, InputSums]:
        """Move from the encoder to the decoder. Each model's decoder reads the output of its own encoder.

        Returns:
            The moments of both encoders' outputs: of the fitted samples, and of the held-out samples.
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
        """Move the dense model past a sublayer that the student does not have."""
        for stream in self._streams:
            if stream.sums is None:
                stream.target(index, dense, stream.student.read().float())

    def pass_on(self, index: int, dense: Sublayer, pruned: Sublayer, layer: int) -> None:
        """Move both models past a sublayer that is not repaired; the arguments are those of `gather`."""
        self.skip(index, dense)
        self.advance(pruned, layer)

    def advance(self, pruned: Sublayer, layer: int) -> None:
        """Move the student past a sublayer that comes from block ``layer`` of the dense model."""
        for stream in self._streams:
            hidden, context = stream.student.read().float(), stream.contexts[layer]
            features = pruned.features(hidden, context) if stream.features is None else stream.features
            stream.features = None
            stream.student.write(pruned.leave(hidden, pruned.total(hidden, features), context))


def _open(evidence: Evidence, index: int, cache: ActivationCache, *, samples: int, first_judge: int) -> Iterator[Stream]:
    """Open the stream of a batch, with its embeddings in the cache; none if all samples of the batch are left out.

    Where one block runs for all layers, there is a stream for each of them, which begins where the dense model is then: one fit
    has to do for all.
    """
    dense, states = evidence.dense, evidence.states
    batch = evidence.calibration.batches[index].to(dense.model.device)
    chosen = (batch.rows < samples).nonzero().flatten()
    if not len(chosen):
        return
    sums, embedded = states.sums(index), states.embedded(index)
    if sums is not None and len(chosen) < len(batch.rows):
        sums = [kept[chosen] for kept in sums]
    real, held_out = batch.real[chosen], batch.rows[chosen] >= first_judge
    trace = None if embedded is None else dense.plain_trace(embedded[chosen], real)
    if trace is None:
        trace = dense.trace({name: values[chosen] for name, values in batch.inputs.items()})
    fit, judge = _rows(real, held_out)
    times = dense.stream_width // trace.hidden.shape[-1]
    for hidden in dense.passes(trace):
        yield Stream(
            contexts=trace.contexts,
            fit=fit,
            judge=judge,
            student=cache.keep(hidden, times=times),
            teacher=None if sums is not None else cache.keep(hidden, times=times),
            sums=sums,
            held_out=held_out,
            decoder=None if trace.decoder is None else (cache.keep(trace.decoder), cache.keep(trace.decoder)),
        )


def _rows(real: Bool[Tensor, "b s"], held_out: Bool[Tensor, " b"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
    """Return the flat indices of the real tokens of fitted samples, and of those of held-out samples."""
    fit, judge = ((real & own[:, None]).flatten().nonzero().flatten() for own in (~held_out, held_out))
    return fit, judge
