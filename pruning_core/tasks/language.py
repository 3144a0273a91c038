"""Language modelling: predict hidden tokens, or the next token."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.checks.reader import NO_MASK
from pruning_core.errors import DatasetInvalid
from pruning_core.tasks.base import Judged, Observed, tokenised
from pruning_core.tasks.batch import UNCOUNTED, Batch, TokenLabelled
from pruning_core.tasks.chats import rendered
from pruning_core.tasks.classification import labels
from pruning_core.tasks.scoring import Tokens, perplexity, token_accuracy, token_loss
from pruning_core.tasks.tokens import PerToken, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pruning_core.data.rows import Rows
    from pruning_core.tasks.base import TaskModel

# Devlin et al. 2019 (arXiv 1810.04805, section 3.1). Every chosen token is hidden: leaving some unchanged is for training.
_HIDDEN_SHARE = 0.15
# Rows of logits whose softmax is computed at a time: with a large vocabulary, few enough to stay in a processor's cache.
_ROWS_AT_A_TIME = 16


class LanguageModel(PerToken):
    """Masked and causal language models. Metrics read the loss of the counted tokens, and the likeliest token at each."""

    def condense(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Yield the summed loss, followed by the likeliest token at each counted position."""
        logits, truth = self.aligned(outputs, labels(batch))
        lost = token_losses(logits, truth).double().sum(-1)
        for own, total, found in zip(truth, lost, logits.argmax(-1), strict=True):
            yield torch.cat([total[None], found[own != UNCOUNTED].double()])

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the likeliest tokens with the right tokens, and compute the mean loss of the right ones."""
        del finding
        assert isinstance(seen.encoded, TokenLabelled), "it is what these families make"
        truth = torch.tensor([token for own in seen.encoded.token_labels for token in own[self.shift :] if token != UNCOUNTED])
        counts = torch.tensor([len(own) - 1 for own in seen.dense])
        dense, pruned = (
            Tokens(
                float(sum(own[0] for own in outputs)) / len(truth),
                torch.cat([own[1:] for own in outputs]).long(),
                truth,
                rows=(torch.stack([own[0] for own in outputs]), counts),
            )
            for outputs in (seen.dense, seen.pruned)
        )
        details = {
            "agreement_with_dense": float((dense.found == pruned.found).double().mean()),
            "counted_tokens": float(len(truth)),
            "loss": token_loss(pruned),
            "perplexity": perplexity(pruned),
            "accuracy": token_accuracy(pruned),
        }
        return Judged(dense, pruned, len(seen.dense), details)


class FillMask(LanguageModel):
    """Masked language modelling. The text alone decides which tokens are hidden: they are the same in every run."""

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> TokenLabelled:
        """Make one sample of each row that has ordinary tokens; 15 % of them are hidden, and at least one.

        Raises:
            DatasetInvalid: The tokenizer has no mask token, or no row has an ordinary token.
        """
        mask = cast("int | None", tokenizer.mask_token_id)
        if mask is None:
            raise DatasetInvalid(NO_MASK, param="task.type")
        columns = tokenised(tokenizer, rows.texts, limit)
        special = set(tokenizer.all_special_ids)
        counted: list[array[int]] = []
        kept: list[int] = []
        for sample, ids in enumerate(columns["input_ids"]):
            ordinary = [at for at, token in enumerate(ids) if token not in special]
            own = array("l", [UNCOUNTED] * len(ids))
            if ordinary:
                kept.append(sample)
                drawn = torch.Generator().manual_seed(zlib.crc32(ids.tobytes()))
                count = max(1, round(_HIDDEN_SHARE * len(ordinary)))
                for choice in torch.randperm(len(ordinary), generator=drawn)[:count].tolist():
                    at = ordinary[choice]
                    own[at], ids[at] = ids[at], mask
            counted.append(own)
        if not kept:
            raise DatasetInvalid("no text has a token that could be hidden", param="task.columns.text")
        return TokenLabelled(
            tokenizer, {name: [values[i] for i in kept] for name, values in columns.items()}, None, [counted[i] for i in kept]
        )


class TextGeneration(LanguageModel):
    """Causal language modelling over blocks of text: rows are joined by end-of-text tokens and cut into equal blocks."""

    shift = 1
    joins_rows = True

    def condense(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Yield the same, from a few rows of logits at a time: over all of a batch's, memory would set the pace."""
        logits, truth = self.aligned(outputs, labels(batch))
        for own, wanted in zip(logits, truth, strict=True):
            counted = wanted != UNCOUNTED
            rows, right = own[counted], wanted[counted]
            parts = list(zip(rows.split(_ROWS_AT_A_TIME), right.split(_ROWS_AT_A_TIME), strict=True))
            lost = torch.cat([nn.functional.cross_entropy(*part, reduction="none") for part in parts])
            found = torch.cat([part.argmax(-1) for part, _ in parts])
            yield torch.cat([lost.double().sum()[None], found.double()])

    def prepared(self, model: TaskModel, rows: Rows) -> Rows:
        """Turn chats into texts by the tokenizer's template."""
        return rows if rows.form != "chat" else rendered(model.tokenizer, rows)

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> TokenLabelled:
        """Join rows and cut them into blocks of ``limit`` tokens; the last block has the tokens that are left.

        Raises:
            DatasetInvalid: The texts have fewer than two tokens in all.
        """
        return blocks_of(tokenizer, documents_of(tokenizer, rows, limit), limit)


def end_tokens(model: TaskModel) -> list[int]:
    """Return the tokens that end a text: those of the model's generation settings and the tokenizer's own."""
    settings = getattr(model.model, "generation_config", None)
    stated = getattr(settings, "eos_token_id", None)
    listed = [] if stated is None else cast("list[int]", stated) if isinstance(stated, list) else [cast("int", stated)]
    own = cast("int | None", model.tokenizer.eos_token_id)
    return list(dict.fromkeys([*listed, *([] if own is None else [own])]))


def documents_of(tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> list[array[int]]:
    """Return the tokens of each row in full, with the token that ends a text."""
    end = cast("int | None", tokenizer.eos_token_id)
    options = {"truncation": False, "max_length": None, "verbose": False, "add_special_tokens": rows.form != "rendered"}
    found = tokenised(tokenizer, rows.texts, limit, **options)["input_ids"]
    for ids in found:
        if end is not None and (not ids or ids[-1] != end):
            ids.append(end)
    return found


def blocks_of(tokenizer: PreTrainedTokenizerBase, documents: Iterable[array[int]], limit: int) -> TokenLabelled:
    """Join documents and cut them into blocks of ``limit`` tokens; the last block has the tokens that are left.

    Raises:
        DatasetInvalid: They have fewer than two tokens in all.
    """
    joined = array("l", chain.from_iterable(documents))
    blocks = [joined[start : start + limit] for start in range(0, len(joined), limit)]
    blocks = [block for block in blocks if len(block) > 1]
    if not blocks:
        raise DatasetInvalid(
            "the texts have fewer than two tokens in all; text-generation needs at least two",
            param="task.dataset",
        )
    return TokenLabelled.unpadded(tokenizer, blocks, blocks)
