"""Decoders on texts: perplexity, agreement with the dense model, and cloze items, all on blocks of equal length."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pruning_core.data.ledger_texts import BLOCK
from pruning_core.data.rows import Rows
from pruning_core.measure.ledger.base import Tell, TokenPart, counted_samples
from pruning_core.measure.ledger.rows import Subject
from pruning_core.report.ledger import LedgerRow
from pruning_core.spec.prune import TaskSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import UNCOUNTED
from pruning_core.tasks.row_forms import exponential_ratio, ratios, shares

CONTEXT, CONTINUATION, CHOICES = 32, 8, 4
# More than tokenizers put into a token: so many are enough for the blocks, and a slow tokenizer reads no more.
_LETTERS_A_TOKEN = 16
_MANY = 64


def blocks_of(model: TaskModel, texts: Sequence[str], most: int) -> list[array[int]]:
    """Cut joined texts into blocks of `BLOCK` tokens, and return some of them, evenly spaced: the whole ones alone."""
    some = _some(texts, most * BLOCK * _LETTERS_A_TOKEN)
    encoded = model.family.encode(model, Rows(tuple((text,) for text in some), None), model.longest(BLOCK))
    whole = [block for block in encoded.columns["input_ids"] if len(block) == model.longest(BLOCK)]
    if len(whole) <= most:
        return whole
    return [whole[int(at)] for at in np.linspace(0, len(whole) - 1, most)]


def _some(texts: Sequence[str], letters: int) -> Sequence[str]:
    """Return about so many letters of texts: every so many-th of many, the beginnings of few."""
    total = sum(map(len, texts))
    if total <= letters:
        return texts
    if len(texts) >= _MANY:
        return texts[:: max(1, total // letters)]
    return [text[: letters // len(texts)] for text in texts]


@dataclass(frozen=True, slots=True)
class TextPart(TokenPart):
    """Perplexity and agreement on the blocks of one text."""

    @classmethod
    def of(cls, model: TaskModel, task: TaskSpec, name: str, blocks: Sequence[array[int]]) -> TextPart:
        """Make one; there is at least one block."""
        return cls(name, counted_samples(model, blocks, blocks), task)

    def observe(self, model: TaskModel, on_step: Tell) -> list[Tensor]:
        """Keep the loss and the likeliest tokens of each block."""
        return self.seen(model, on_step)

    def rows(self, dense: list[Tensor], pruned: list[Tensor], seed: int) -> list[LedgerRow]:
        """Judge both."""
        counts = np.array([len(own) - 1 for own in dense])
        lost = [np.array([float(own[0]) for own in side]) for side in (dense, pruned)]
        same = np.array([int((a[1:] == b[1:]).sum()) for a, b in zip(dense, pruned, strict=True)])
        perplexity, agreement = self.subjects
        return [
            perplexity.row(ratios(lost[0], counts, lost[1], counts, exponential_ratio), seed),
            agreement.row(ratios(counts, counts, same, counts), seed),
        ]

    @property
    def subjects(self) -> tuple[Subject, Subject]:
        """Perplexity and agreement."""
        return Subject(self.name, "perplexity", "block"), Subject(self.name, "agreement", "block")


@dataclass(frozen=True, slots=True)
class ClozePart(TokenPart):
    """Cloze items: the continuation of each block's beginning, and three continuations of other blocks of the text."""

    @classmethod
    def of(cls, model: TaskModel, task: TaskSpec, name: str, blocks: Sequence[array[int]], seed: int) -> ClozePart | None:
        """Make the items; None where there are too few blocks to take other continuations from."""
        items = _items(blocks, seed, name)
        if not items:
            return None
        counted = [array("l", [UNCOUNTED] * CONTEXT) + own[CONTEXT:] for own in items]
        return cls(name, counted_samples(model, items, counted), task)

    def observe(self, model: TaskModel, on_step: Tell) -> Tensor:
        """Keep the loss of each continuation, (items, choices); the first is the true one."""
        return torch.stack([own[0] for own in self.seen(model, on_step)]).view(-1, CHOICES)

    def rows(self, dense: Tensor, pruned: Tensor, seed: int) -> list[LedgerRow]:
        """Judge both: right is a true continuation that is surely the likeliest, ties are wrong."""
        before, after = ((own[:, 0] < own[:, 1:].amin(-1)).numpy() for own in (dense, pruned))
        return [self.subjects[0].row(shares(before, after), seed)]

    @property
    def subjects(self) -> tuple[Subject]:
        """The items."""
        return (Subject(self.name, "cloze", "item", chance=1 / CHOICES),)


def _items(blocks: Sequence[array[int]], seed: int, name: str) -> list[array[int]]:
    """Return four samples for each block that has three other continuations, the true one first."""
    rng = random.Random(f"{seed}/cloze/{name}")  # noqa: S311 - a sample, and no secret
    stop = CONTEXT + CONTINUATION
    blocks = [block for block in blocks if len(block) >= stop]
    found: list[array[int]] = []
    for block in blocks:
        own = block[CONTEXT:stop]
        others = {tuple(other[CONTEXT:stop]) for other in blocks} - {tuple(own)}
        if len(others) >= CHOICES - 1:
            wrong = rng.sample(sorted(others), CHOICES - 1)
            found += [block[:CONTEXT] + array("l", tokens) for tokens in (own, *wrong)]
    return found
