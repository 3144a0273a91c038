"""What a family of tasks is: how rows become samples, what outputs mean, and how they are scored.

Everything that depends on the type of the task is behind this class, so that statistics, methods, evaluation and proof know
none of them.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from pruning_core.arch.paging import first_names
from pruning_core.checks.task import positions_of
from pruning_core.report.report import QualityReport
from pruning_core.shapes import Float
from pruning_core.spec.metrics import METRICS
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import TaskType, finding_of
from pruning_core.tasks.batch import Batch, Encoded
from pruning_core.tasks.scoring import metric_of

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.utils.generic import ModelOutput

    from pruning_core.data.rows import Rows

# Rows that are tokenised at a time: a tokenizer's own records of long texts fill hundreds of megabytes.
_PORTION = 256
# A large output (a vocabulary) is proven by so many of its entries, evenly spaced, and the sum over all.
PROVEN_ENTRIES = 64


Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class TaskModel:
    """A model with its tokenizer, in evaluation mode, float32, no parameter requiring a gradient.

    Attributes:
        processor: The tokenizer; for images, what transformers calls an image processor.
        task_type: The type of the task.
        family: What the task computes.
        source: Local folder that the checkpoint was read from.
        stored_dtype: Type of the weights as stored: float32, float16 or bfloat16.
        pooling: How token states become one embedding; only for feature-extraction.
        pages: Folder for what the weights of paged blocks are replaced by; None where all weights are in memory.
    """

    model: PreTrainedModel
    processor: PreTrainedTokenizerBase
    task_type: TaskType
    family: TaskFamily
    source: Path
    stored_dtype: str
    pooling: Pooling
    pages: Path | None = None

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the model.

        Args:
            inputs: What the model takes, each (batch, ...).

        Returns:
            What the task stands on: logits (batch, classes), scores (batch, 1), embeddings of unit length (batch, hidden), or
            logits for every token (batch, length, entries).
        """
        return self.family.outputs(self, inputs)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, of models that read text."""
        return self.processor

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the model's head, by index."""
        config = self.model.config
        count = config.num_labels or 0
        names = cast("dict[int, str]", config.id2label or {})
        return tuple(names.get(index, f"LABEL_{index}") for index in range(count))

    @property
    def entries(self) -> int:
        """Size of the output for every token, where there is one: the vocabulary, or the number of tags; 1 for other tasks."""
        head = self.model.get_output_embeddings()
        return max(1, cast("torch.nn.Embedding", head).weight.shape[0] if head is not None else 1)

    def longest(self, wanted: int) -> int:
        """Cut a length in tokens to what the tokenizer and the model's positions allow."""
        limits = [wanted, positions_of(self.model.config.to_dict()), getattr(self.processor, "model_max_length", None)]
        return min(limit for limit in limits if limit is not None)

    def input_length(self, wanted: int) -> int:
        """Give the length in tokens of inputs that are timed: an image has as many as it has."""
        return self.family.input_length(self, wanted)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.device

    def with_model(self, model: PreTrainedModel) -> TaskModel:
        """Give the same task and tokenizer around another model."""
        return dataclasses.replace(self, model=model)

    def parameter_count(self) -> int:
        """Count the values that a checkpoint stores: tied ones once, and no tables that are computed (sines)."""
        computed = self.model._keys_to_ignore_on_save or ()  # pyright: ignore[reportPrivateUsage] - theirs, and the only list
        state = cast("dict[str, Tensor]", self.model.state_dict())
        first = first_names(self.model)
        return sum(own.numel() for name, own in state.items() if first[name] == name and name not in computed)


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of two models on the same samples.

    Attributes:
        dense: One observation a sample of the dense model, in the samples' own order.
        pruned: Likewise of the pruned one.
        encoded: The samples.
        rows: Where they come from.
    """

    dense: Sequence[Tensor]
    pruned: Sequence[Tensor]
    encoded: Encoded
    rows: Rows


@dataclass(frozen=True, slots=True)
class Judged:
    """What a metric compares.

    Attributes:
        dense: What was found with the dense model, as one of the classes of `pruning_core.tasks.scoring`.
        pruned: Likewise with the pruned one.
        samples: How many were judged.
        details: Further figures for the report; the one that has the metric's own name is left out there.
    """

    dense: object
    pruned: object
    samples: int
    details: Mapping[str, float]


class TaskFamily(ABC):
    """One family of tasks.

    Attributes:
        reads: Names of the model's outputs that the task stands on; several are stacked along the last axis.
        softens: Whether outputs are logits of classes, which a temperature softens.
        joins_rows: Whether rows are short of samples: many of them make one.
        example: Inputs of two rows, of several lengths, to show an exporter what inputs look like.
        tokenizer_options: What the tokenizer must be told of such texts.
    """

    reads: ClassVar[tuple[str, ...]] = ("logits",)
    softens: ClassVar[bool] = True
    joins_rows: ClassVar[bool] = False
    example: ClassVar[tuple[tuple[str, ...], ...]] = (("one two three",), ("four",))
    tokenizer_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def encode(self, model: TaskModel, rows: Rows, limit: int) -> Encoded:
        """Turn rows into samples of at most ``limit`` tokens.

        Raises:
            DatasetInvalid: No row makes a sample.
        """
        return self.encode_with(model.tokenizer, rows, limit)

    @abstractmethod
    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Do it with a tokenizer alone, as most families can."""

    def outputs(self, model: TaskModel, inputs: Mapping[str, Tensor]) -> Float[Tensor, "b ..."]:
        """Run the model: logits (batch, classes), scores (batch, 1), or the same for every token."""
        return self.read(model, model.model(**inputs), inputs)

    def read(self, model: TaskModel, result: ModelOutput, inputs: Mapping[str, Tensor]) -> Float[Tensor, "b ..."]:
        """Take the task's outputs from what the model's forward has given."""
        del model, inputs
        found = [cast("Tensor", getattr(result, name)) for name in self.reads]
        return found[0] if len(found) == 1 else torch.stack(found, dim=-1)

    @abstractmethod
    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Give the negative log-likelihood (or squared error) of each sample's labels."""

    def answers(self, batch: Batch) -> Float[Tensor, " b"]:
        """Count the labels that each sample's loss is the sum of."""
        return torch.ones(len(batch.rows), device=batch.rows.device)

    def naive_loss(self, model: TaskModel, batches: Sequence[Batch]) -> float:
        """Give the loss a label of a model that has learnt nothing and finds all classes alike."""
        del batches
        return math.log(max(2, model.entries, len(model.classes)))

    @abstractmethod
    def probes(self, outputs: Tensor, batch: Batch, seed: int) -> Float[Tensor, " b"]:
        """Give a scalar of each sample whose squared gradient has the true Fisher, or its Gauss-Newton form, as expectation.

        Whatever is drawn for a sample depends on the seed and the sample's own row, never on how samples are batched. The
        divergence to the model's own outputs is no substitute: at the dense point its gradient is zero.
        """

    @abstractmethod
    def divergences(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Give how far each sample's outputs are from another model's."""

    def observe(self, model: TaskModel, batch: Batch, task: TaskSpec) -> list[Tensor]:
        """Run a model and keep of each sample what the metric needs, on the CPU."""
        del task
        outputs = self.outputs(model, batch.to(model.device).inputs).float().cpu()
        return list(self.condense(outputs, batch))

    def condense(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Keep of each sample's outputs what the metric needs: all of it, where it is little."""
        del batch
        yield from outputs

    def quality(self, task: TaskSpec, seen: Observed) -> QualityReport:
        """Judge what was observed of the pruned model by the task's metric, beside the dense model.

        Args:
            task: Its metric.
            seen: Of both models, on the validation split.
        """
        finding = finding_of(task.type, task.metric)
        judged, compute = self.judge(seen, finding), metric_of(task.metric, finding)
        return QualityReport(
            metric=task.metric,
            dense=compute(judged.dense),
            pruned=compute(judged.pruned),
            samples=judged.samples,
            lower_is_better=METRICS[task.metric].lower_is_better,
            details={name: value for name, value in judged.details.items() if name != task.metric},
        )

    @abstractmethod
    def judge(self, seen: Observed, finding: str) -> Judged:
        """Put what was observed beside what is right, as metrics compare it.

        Args:
            seen: Of both models, on the validation split.
            finding: Which of the findings that the task's row lists the metric compares.
        """

    def columns_of(self, texts: Sequence[tuple[str, ...]]) -> list[list[Any]]:
        """Arrange texts as a tokenizer takes them: all first ones, all second ones."""
        return columns_of(texts)

    def probe_texts(self, texts: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
        """Choose what of each row goes into one input of the model."""
        return tuple(texts)

    def probe_inputs(self, model: TaskModel, texts: Sequence[tuple[str, ...]], length: int) -> Batch:
        """Prepare texts as whoever downloads the bundle would: by the stock tokenizer alone."""
        tokenizer = model.tokenizer
        layout = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        encoded = encoded_by(tokenizer, self.columns_of(texts), length, **self.tokenizer_options, **layout)
        inputs = {name: cast("Tensor", encoded[name]) for name in tokenizer.model_input_names if name in encoded}
        return Batch(inputs, torch.arange(len(texts)), None)

    def input_length(self, model: TaskModel, wanted: int) -> int:
        """Give the length of an input in tokens where so many are wanted."""
        return model.longest(wanted)

    def random_inputs(self, model: TaskModel, batch: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw inputs without padding for timing."""
        ids = random_tokens(model, batch, length, generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def tokenised(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[tuple[str, ...]],
    limit: int,
    **options: Any,  # of the tokenizer, on its way there
) -> dict[str, list[array[int]]]:
    """Tokenise in portions and keep only the numbers."""
    found: dict[str, list[array[int]]] = {}
    for _, part in portions(rows):
        collect_(found, tokenizer, encoded_by(tokenizer, columns_of(part), limit, **options))
    return found


def encoded_by(
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[Sequence[Any]],
    limit: int,
    **options: Any,  # of the tokenizer, on its way there
) -> BatchEncoding:
    """Tokenise the columns of some rows, to at most ``limit`` tokens a row."""
    given = {"truncation": True, "max_length": limit, "padding": False} | options
    return cast("Any", tokenizer)(*columns, **given)


def columns_of(rows: Sequence[tuple[str, ...]]) -> list[list[Any]]:
    """Turn rows into columns."""
    return [list(column) for column in zip(*rows, strict=True)]


def portions(rows: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, Sequence[tuple[str, ...]]]]:
    """Cut rows into portions to be tokenised at a time, each with the index of its first row."""
    for start in range(0, len(rows), _PORTION):
        yield start, rows[start : start + _PORTION]


def collect_(columns: dict[str, list[array[int]]], tokenizer: PreTrainedTokenizerBase, encoded: BatchEncoding) -> None:
    """Add what a model reads of tokenised rows to the columns so far."""
    for name in tokenizer.model_input_names:
        if name in encoded:
            columns.setdefault(name, []).extend(array("l", values) for values in encoded[name])


def random_tokens(model: TaskModel, batch: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw token ids, (batch, length), on the model's device."""
    vocabulary = cast("torch.nn.Embedding", model.model.get_input_embeddings()).num_embeddings
    ids = torch.randint(0, vocabulary, (batch, length), generator=generator)
    # RoBERTa-like models count positions by which tokens are padding; there must be none.
    padding = model.tokenizer.pad_token_id
    ids[ids == padding] = 0 if padding else 1
    last = cast("int | None", model.model.config.eos_token_id)
    if model.model.config.is_encoder_decoder and last is not None:  # a classifier reads the one token that ends a sequence
        ids[ids == last] = 0 if padding else 1
        ids[:, -1] = last
    return ids.to(model.device)


def proven(outputs: Float[Tensor, "b ..."], real: Tensor | None) -> Float[Tensor, "b n"]:
    """Give what of the outputs is compared with those of a fresh process.

    All of it where that is one vector a sample. Of a vector for every token: entries evenly spaced and the log of the sum of
    exponentials, which no entry can change unnoticed; nothing of padding. `artifacts.fresh` does the same.
    """
    if outputs.ndim == 2:
        return outputs
    entries = outputs.shape[-1]
    if entries > PROVEN_ENTRIES:
        index = torch.linspace(0, entries - 1, PROVEN_ENTRIES).long().to(outputs.device)
        outputs = torch.cat([outputs[..., index], outputs.logsumexp(-1, keepdim=True)], dim=-1)
    if real is not None and real.shape == outputs.shape[:2]:
        outputs = outputs * real.unsqueeze(-1)
    return outputs.flatten(1)


def signs(like: Tensor, batch: Batch, seed: int) -> Tensor:
    """Draw random signs in the shape of an output, each sample's by its own row."""
    drawn = torch.empty(like.shape, device="cpu")
    for position, row in enumerate(batch.rows.tolist()):
        own = torch.Generator().manual_seed(seed + row)
        drawn[position] = torch.randint(0, 2, like.shape[1:], generator=own).float() * 2 - 1
    return drawn.to(like)


def uniforms(count: int, batch: Batch, seed: int) -> Float[Tensor, "b n"]:
    """Draw numbers in [0, 1), each sample's by its own row; the first ones do not depend on how many are drawn."""
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(seed + row)) for row in batch.rows.tolist()])
