"""Sequence to sequence: summaries and translations by encoder-decoder models."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import finding_of
from pruning_core.tasks.base import Judged, Observed, known_tokens, random_tokens, tokenised
from pruning_core.tasks.batch import UNCOUNTED, Batch, Encoded, pad_labels
from pruning_core.tasks.classification import labels
from pruning_core.tasks.scoring import Losses, Texts, token_loss
from pruning_core.tasks.tokens import PerToken, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pruning_core.data.rows import Rows
    from pruning_core.tasks.base import TaskModel

# In acceptance the decoder starts from this many tokens of its own input, as if it had written them.
PROVEN_STEPS = 8


@dataclass(frozen=True)
class Translations(Encoded):
    """Source texts with their target texts.

    Attributes:
        targets: Token ids of each target, its end-of-text token included.
        start: Id of the token that the decoder begins with.
    """

    targets: Sequence[array[int]] = ()
    start: int = 0

    def batch(self, index: Sequence[int]) -> Batch:
        """Make a padded batch; the decoder reads each target shifted by one token (teacher forcing)."""
        truth = pad_labels([self.targets[i] for i in index])
        inputs = self.padded(index)
        given = shifted(truth.where(truth != UNCOUNTED, cast("int", self.tokenizer.pad_token_id)), self.start)
        inputs |= {"decoder_input_ids": given, "decoder_attention_mask": (truth != UNCOUNTED).long()}
        return Batch(inputs, torch.tensor(index), truth)


def shifted(tokens: Tensor, start: int) -> Tensor:
    """Shift tokens to the right by one: put ``start`` in front and drop the last token."""
    return torch.cat([torch.full_like(tokens[:, :1], start), tokens[:, :-1]], dim=1)


class SequenceToSequence(PerToken):
    """Encoder-decoder models, judged by the loss under teacher forcing or by the text that they generate."""

    def encode(self, model: TaskModel, rows: Rows, limit: int) -> Translations:
        """Make one sample of each row; sources and targets are cut to the same length."""
        tokenizer = model.tokenizer
        assert rows.labels is not None, "the spec requires a label column for this task type"
        columns = tokenised(tokenizer, rows.texts, limit)
        known_tokens(model, Encoded(tokenizer, columns, None))
        wanted: list[array[int]] = []
        for label in rows.labels:
            ids = tokenizer(text_target=cast("str", label), truncation=True, max_length=limit)["input_ids"]
            wanted.append(array("l", cast("list[int]", ids)))
        return Translations(tokenizer, columns, None, wanted, start_token(model))

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Raise: the model's config says which token the decoder begins with, and no tokenizer does."""
        raise NotImplementedError

    def observe(self, model: TaskModel, batch: Batch, task: TaskSpec) -> list[Tensor]:
        """Keep the summed loss, its number of tokens, and, where the metric reads texts, the generated token ids."""
        moved = batch.to(model.device)
        truth = labels(moved)
        lost = token_losses(self.outputs(model, moved.inputs).float(), truth).double().sum(-1)
        counts = (truth != UNCOUNTED).sum(-1).double()
        written: list[list[int]] = [[] for _ in range(len(lost))]
        if finding_of(task.type, task.metric) == "texts":
            inputs = {name: value for name, value in moved.inputs.items() if not name.startswith("decoder_")}
            writer = cast("Any", model.model)
            written = writer.generate(**inputs, max_new_tokens=int(counts.max()) + 1, do_sample=False, num_beams=1).tolist()
        return [
            torch.tensor([float(total), float(count), *own], dtype=torch.float64)
            for total, count, own in zip(lost, counts, written, strict=True)
        ]

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Compute the loss a token, or pair the generated texts with the targets."""
        losses = [
            Losses(
                float(sum(own[0] for own in side) / sum(own[1] for own in side)),
                rows=(torch.stack([own[0] for own in side]), torch.stack([own[1] for own in side])),
            )
            for side in (seen.dense, seen.pruned)
        ]
        if finding == "losses":
            return Judged(losses[0], losses[1], len(seen.rows), {})
        assert seen.rows.labels is not None, "the spec requires a label column for this task type"
        wanted = [cast("str", label) for label in seen.rows.labels]
        dense, pruned = (
            Texts(
                seen.encoded.tokenizer.batch_decode([own[2:].long().tolist() for own in side], skip_special_tokens=True), wanted
            )
            for side in (seen.dense, seen.pruned)
        )
        same = sum(a == b for a, b in zip(dense.found, pruned.found, strict=True)) / len(wanted)
        return Judged(dense, pruned, len(seen.rows), {"same_text_as_dense": same, "loss": token_loss(losses[1])})

    def probe_inputs(self, model: TaskModel, texts: Sequence[tuple[str, ...]], length: int) -> Batch:
        """Feed the decoder the first tokens of the encoder's input: acceptance then needs no target text."""
        batch = super().probe_inputs(model, texts, length)
        return Batch(_with_decoder(batch.inputs, start_token(model)), batch.rows, None)

    def random_inputs(self, model: TaskModel, batch: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw random sources and targets of the same length, for timing."""
        ids, given = (random_tokens(model, batch, length, generator) for _ in range(2))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": given}


def _with_decoder(inputs: Mapping[str, Tensor], start: int) -> dict[str, Tensor]:
    return {**inputs, "decoder_input_ids": shifted(inputs["input_ids"][:, :PROVEN_STEPS], start)}


def start_token(model: TaskModel) -> int:
    """Return the id of the token that the model's decoder begins with."""
    config = cast("Any", model.model.config)
    found = getattr(config, "decoder_start_token_id", None)
    return cast("int", model.tokenizer.pad_token_id if found is None else found)
