"""Task families: how rows become samples, what the model's outputs mean, and how they are scored.

Everything that depends on the task type is behind `TaskFamily`. Statistics, methods, evaluation and acceptance know no task
type.
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
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from pruning_core.arch.paging import first_names
from pruning_core.checks.task import positions_of
from pruning_core.errors import ModelUnreadable
from pruning_core.report.report import QualityReport
from pruning_core.shapes import Float
from pruning_core.spec.metrics import METRICS
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import TaskType, finding_of
from pruning_core.tasks.batch import Batch, Encoded
from pruning_core.tasks.embedder import Embedder
from pruning_core.tasks.lengths import first_of, parts_of
from pruning_core.tasks.scoring import constant_quality, metric_of

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.utils.generic import ModelOutput

    from pruning_core.data.rows import Rows

# Rows tokenised at a time: a tokenizer's own records of long texts fill hundreds of megabytes.
_PORTION = 256
# Acceptance compares this many entries of a large output (a vocabulary), evenly spaced, and the logsumexp over all entries.
PROVEN_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Uncut:
    """A model before its vocabulary was cut.

    Attributes:
        source: Its folder.
        parameters: Number of its parameters.
    """

    source: Path
    parameters: int


@dataclass(frozen=True, slots=True)
class TaskModel:
    """A model with its tokenizer, in evaluation mode, float32, no parameter requiring a gradient.

    Attributes:
        processor: The tokenizer; for images, transformers' image processor.
        task_type: The type of the task.
        family: The family of the task type: it encodes samples, reads outputs and scores them.
        source: Local folder that the checkpoint was read from.
        stored_dtype: Type of the weights as stored: float32, float16 or bfloat16.
        embedder: How token states become one embedding; only for tasks that are judged by embeddings.
        pages: Folder for the files of paged blocks' new weights; None where all weights are in memory.
        uncut: The model before its vocabulary was cut; None where that is whole.
    """

    model: PreTrainedModel
    processor: PreTrainedTokenizerBase
    task_type: TaskType
    family: TaskFamily
    source: Path
    stored_dtype: str
    embedder: Embedder | None = None
    pages: Path | None = None
    uncut: Uncut | None = None

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the model.

        Args:
            inputs: The model's inputs by name, each (batch, ...).

        Returns:
            The outputs that the task reads: logits (batch, classes), scores (batch, 1), embeddings (batch, values), or logits
            for every token (batch, length, entries).
        """
        return self.family.outputs(self, inputs)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of a model that reads text."""
        return self.processor

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the model's head, by index."""
        config = self.model.config
        names = cast("dict[int, str]", config.id2label or {})
        return tuple(str(names.get(index, f"LABEL_{index}")) for index in range(config.num_labels or 0))  # some are numbers

    @property
    def entries(self) -> int:
        """Number of logits for every token: size of the vocabulary, or number of tags; 1 for tasks without such logits."""
        head = self.model.get_output_embeddings()
        return max(1, cast("torch.nn.Embedding", head).weight.shape[0] if head is not None else 1)

    def longest(self, wanted: int) -> int:
        """Return a length in tokens, cut to what the tokenizer and the model's positions allow."""
        limits = [wanted, positions_of(self.model.config.to_dict()), getattr(self.processor, "model_max_length", None)]
        return int(min(limit for limit in limits if limit is not None))  # a tokenizer's may have a decimal point

    def input_length(self, wanted: int) -> int:
        """Return the length in tokens of inputs that are timed; for images it is fixed by the model."""
        return self.family.input_length(self, wanted)

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return self.model.device

    def with_model(self, model: PreTrainedModel) -> TaskModel:
        """Return the same task and tokenizer around another model."""
        return dataclasses.replace(self, model=model)

    def before_cut(self, uncut: Uncut) -> TaskModel:
        """Return the same model, whose size is compared with that of another."""
        return dataclasses.replace(self, uncut=uncut)

    @property
    def whole_source(self) -> Path:
        """Folder of the model with its whole vocabulary."""
        return self.source if self.uncut is None else self.uncut.source

    @property
    def whole_parameters(self) -> int:
        """Number of parameters with the whole vocabulary, of which targets are shares."""
        return self.parameter_count() if self.uncut is None else self.uncut.parameters

    def parameter_count(self) -> int:
        """Count the values that a checkpoint stores: tied weights once, computed tables (sines) not at all."""
        computed = self.model._keys_to_ignore_on_save or ()  # pyright: ignore[reportPrivateUsage] - theirs, and the only list
        state = cast("dict[str, Tensor]", self.model.state_dict())
        first = first_names(self.model)
        return sum(own.numel() for name, own in state.items() if first[name] == name and name not in computed)


@dataclass(frozen=True, slots=True)
class Observed:
    """Observations of the dense and the pruned model on the same samples.

    Attributes:
        dense: One observation a sample from the dense model, in the order of the samples.
        pruned: One observation a sample from the pruned model, in the same order.
        encoded: The samples.
        rows: The rows that the samples were made of.
    """

    dense: Sequence[Tensor]
    pruned: Sequence[Tensor]
    encoded: Encoded
    rows: Rows


@dataclass(frozen=True, slots=True)
class Judged:
    """The findings that a metric is computed from, one for each model.

    Attributes:
        dense: The dense model's finding: an instance of one of the classes of `pruning_core.tasks.scoring`.
        pruned: The pruned model's finding, of the same class.
        samples: Number of samples that were judged.
        details: Further figures for the report, which leaves out the one with the metric's own name.
    """

    dense: object
    pruned: object
    samples: int
    details: Mapping[str, float]


class TaskFamily(ABC):
    """A family of tasks: everything that computes for them.

    Attributes:
        reads: Names of the model's outputs that the task reads; several are stacked along the last axis.
        softens: Whether outputs are logits of classes, which a temperature can soften.
        joins_rows: Whether a sample is made of many rows, because rows are shorter than samples.
        example: Inputs of two rows, of different lengths, that show an exporter what inputs look like.
        tokenizer_options: Options that the tokenizer needs for texts of this family.
    """

    reads: ClassVar[tuple[str, ...]] = ("logits",)
    softens: ClassVar[bool] = True
    joins_rows: ClassVar[bool] = False
    example: ClassVar[tuple[tuple[str, ...], ...]] = (("one two three",), ("four",))
    tokenizer_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def prepared(self, model: TaskModel, rows: Rows) -> Rows:
        """Turn what only a model's tokenizer can read into texts; here there is nothing such."""
        del model
        return rows

    def encode(self, model: TaskModel, rows: Rows, limit: int) -> Encoded:
        """Turn rows into samples of at most ``limit`` tokens.

        Raises:
            DatasetInvalid: No row makes a sample.
            ModelUnreadable: The tokenizer makes tokens that the model does not have.
        """
        return known_tokens(model, self.encode_with(model.tokenizer, rows, limit))

    @abstractmethod
    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Turn rows into samples with a tokenizer alone, which is enough for most families."""

    def outputs(self, model: TaskModel, inputs: Mapping[str, Tensor]) -> Float[Tensor, "b ..."]:
        """Run the model: logits (batch, classes), scores (batch, 1), or the same for every token."""
        return self.read(model, model.model(**inputs), inputs)

    def read(self, model: TaskModel, result: ModelOutput, inputs: Mapping[str, Tensor]) -> Float[Tensor, "b ..."]:
        """Take the task's outputs from the result of the model's forward."""
        del model, inputs
        found = [cast("Tensor", getattr(result, name)) for name in self.reads]
        return found[0] if len(found) == 1 else torch.stack(found, dim=-1)

    @abstractmethod
    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the negative log-likelihood (or squared error) of each sample's labels."""

    def answers(self, batch: Batch) -> Float[Tensor, " b"]:
        """Return the number of labels that each sample's loss sums over."""
        return torch.ones(len(batch.rows), device=batch.rows.device)

    def naive_loss(self, model: TaskModel, batches: Sequence[Batch]) -> float:
        """Return the loss a label of a model that has learnt nothing and finds all classes equally likely."""
        del batches
        return math.log(max(2, model.entries, len(model.classes)))

    @abstractmethod
    def probes(self, outputs: Tensor, batch: Batch, seed: int) -> Float[Tensor, " b"]:
        """Compute a scalar for each sample whose expected squared gradient is the true Fisher, or its Gauss-Newton form.

        Random draws for a sample depend on the seed and the sample's own row, never on how samples are batched. The divergence
        from the model's own outputs is no substitute: its gradient at the dense model is zero.
        """

    @abstractmethod
    def divergences(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute how far each sample's outputs are from those of another model."""

    def observe(self, model: TaskModel, batch: Batch, task: TaskSpec) -> list[Tensor]:
        """Run a model and keep, on the CPU, what the metric needs of each sample's outputs."""
        del task
        outputs = self.outputs(model, batch.to(model.device).inputs).float().cpu()
        return list(self.condense(outputs, batch))

    def condense(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Yield what the metric needs of each sample's outputs; here, where outputs are small, all of it."""
        del batch
        yield from outputs

    def quality(self, task: TaskSpec, seen: Observed) -> QualityReport:
        """Compute the task's metric from observations of both models on the validation split."""
        return self.scored(task, self.judge(seen, finding_of(task.type, task.metric)))

    def scored(self, task: TaskSpec, judged: Judged) -> QualityReport:
        """Compute the task's metric from the findings of both models."""
        finding, metric = finding_of(task.type, task.metric), METRICS[task.metric]
        compute = metric_of(task.metric, finding)
        pruned = compute(judged.pruned)
        return QualityReport(
            metric=task.metric,
            dense=compute(judged.dense),
            pruned=pruned if metric.undefined is None or not math.isnan(pruned) else metric.undefined,
            undefined=math.isnan(pruned) and metric.undefined is not None,
            constant=constant_quality(compute, judged.dense),
            samples=judged.samples,
            lower_is_better=metric.lower_is_better,
            details={name: own for name, own in judged.details.items() if name != task.metric and not math.isnan(own)},
        )

    @abstractmethod
    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the observations with the right answers, in the form that the metric compares.

        Args:
            seen: Observations of both models on the validation split.
            finding: Name of the finding that the metric compares, one of those in the task's row (`TaskKind.findings`).
        """

    def columns_of(self, texts: Sequence[tuple[str, ...]]) -> list[list[Any]]:
        """Arrange texts as a tokenizer takes them: all first texts, then all second texts."""
        return columns_of(texts)

    def probe_texts(self, texts: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
        """Choose the texts of each row that make one input of the model."""
        return tuple(texts)

    def probe_inputs(self, model: TaskModel, texts: Sequence[tuple[str, ...]], length: int) -> Batch:
        """Prepare texts as a user of the bundle would: by the stock tokenizer alone."""
        tokenizer = model.tokenizer
        layout = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        encoded = encoded_by(tokenizer, self.columns_of(texts), length, **self.tokenizer_options, **layout)
        inputs = {name: cast("Tensor", encoded[name]) for name in tokenizer.model_input_names if name in encoded}
        return Batch(inputs, torch.arange(len(texts)), None)

    def input_length(self, model: TaskModel, wanted: int) -> int:
        """Return the length in tokens of an input for a wanted length."""
        return model.longest(wanted)

    def random_inputs(self, model: TaskModel, batch: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw random inputs without padding, for timing."""
        ids = random_tokens(model, batch, length, generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def tokenised(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[tuple[str, ...]],
    limit: int,
    **options: Any,  # of the tokenizer, on its way there
) -> dict[str, list[array[int]]]:
    """Tokenise rows in portions and return the model's inputs by name, one array a row."""
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
    """Tokenise rows that are given as columns, to at most ``limit`` tokens a row."""
    given = {"truncation": True, "max_length": limit, "padding": False} | options
    if given["truncation"] and tokenizer.truncation_side == "right":
        columns = parts_of(columns, limit)
    return cast("Any", tokenizer)(*columns, **given)


def known_tokens(model: TaskModel, encoded: Encoded) -> Encoded:
    """Return samples whose tokens all have an embedding.

    Raises:
        ModelUnreadable: One has none: the lookup would fail on a CPU, and on a GPU end the process.
    """
    weight = getattr(model.model.get_input_embeddings(), "weight", None)
    largest = max((max(ids) for ids in encoded.columns["input_ids"] if ids), default=0)
    if weight is not None and largest >= weight.shape[0]:
        raise ModelUnreadable(
            f"the tokenizer makes a token {largest}, and the model has {weight.shape[0]} embeddings; they belong to different "
            "models, or tokens were added without resizing the embeddings",
            param="model",
        )
    return encoded


def columns_of(rows: Sequence[tuple[str, ...]]) -> list[list[Any]]:
    """Transpose rows into columns."""
    return [list(column) for column in zip(*rows, strict=True)]


def portions(rows: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, Sequence[tuple[str, ...]]]]:
    """Split rows into portions for the tokenizer, each with the index of its first row."""
    for start in range(0, len(rows), _PORTION):
        yield start, rows[start : start + _PORTION]


def collect_(columns: dict[str, list[array[int]]], tokenizer: PreTrainedTokenizerBase, encoded: BatchEncoding) -> None:
    """Append the model's inputs of tokenised rows to the columns, in place."""
    for name in tokenizer.model_input_names:
        if name in encoded:
            columns.setdefault(name, []).extend(array("l", values) for values in encoded[name])


def random_tokens(model: TaskModel, batch: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw random token ids, (batch, length), on the model's device."""
    vocabulary = cast("torch.nn.Embedding", model.model.get_input_embeddings()).num_embeddings
    ids = torch.randint(0, vocabulary, (batch, length), generator=generator)
    # RoBERTa-like models skip padding tokens when they count positions, so none may be drawn.
    padding = model.tokenizer.pad_token_id
    ids[ids == padding] = 0 if padding else 1
    last = first_of(model.model.config.eos_token_id)
    if model.model.config.is_encoder_decoder and last is not None:  # a classifier reads the one token that ends a sequence
        ids[ids == last] = 0 if padding else 1
        ids[:, -1] = last
    return ids.to(model.device)


def proven(outputs: Float[Tensor, "b ..."], real: Tensor | None) -> Float[Tensor, "b n"]:
    """Return the part of the outputs that acceptance compares with those of a fresh process.

    One vector a sample is compared whole. Of a vector for every token, evenly spaced entries are compared and the logsumexp,
    which changes whenever an entry does; padding is zeroed. `artifacts.fresh` does the same.
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
    """Draw random signs in the shape of an output; the seed and a sample's own row decide its signs."""
    drawn = torch.empty(like.shape, device="cpu")
    for position, row in enumerate(batch.rows.tolist()):
        own = torch.Generator().manual_seed(seed + row)
        drawn[position] = torch.randint(0, 2, like.shape[1:], generator=own).float() * 2 - 1
    return drawn.to(like)


def uniforms(count: int, batch: Batch, seed: int) -> Float[Tensor, "b n"]:
    """Draw numbers in [0, 1) by the seed and each sample's row; the first ones do not depend on how many are drawn."""
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(seed + row)) for row in batch.rows.tolist()])
