"""The training set: rows of the training split, some of them held out, in batches of similar length drawn anew each epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pruning_core.data.rows import Rows
from pruning_core.errors import DatasetInvalid
from pruning_core.evidence.calibration import pack
from pruning_core.evidence.context import generator
from pruning_core.spec.training import TrainingOptions
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch, Encoded

# Number of batches whose rows are drawn at random together and then sorted by length.
_SORTED_TOGETHER = 50
_MOST_HELD_OUT = 1024
# Kinds of held-out samples: of the user's data, and of what the dense model wrote itself.
IN_DOMAIN, OFF_DOMAIN = "in domain", "off domain"


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Tokenised rows, split into those to train on and those held out to judge the weights.

    Attributes:
        encoded: All rows, tokenised.
        train: Indices of the rows to train on.
        held_out: Indices of the held-out rows.
        seed: Seed of the order. Each epoch's order follows from seed and epoch alone, not from earlier draws.
        micro_tokens: Tokens that run through the model at once, padding included.
        written: Indices of the texts to train on that the dense model wrote itself.
        written_held_out: Indices of its held-out texts.
        written_share: Share of an epoch that are such texts. Of each kind, as many as fit the share are drawn anew each epoch.
    """

    encoded: Encoded
    train: tuple[int, ...]
    held_out: tuple[int, ...]
    seed: int
    micro_tokens: int
    written: tuple[int, ...] = ()
    written_held_out: tuple[int, ...] = ()
    written_share: float = 0.0

    @classmethod
    def draw(
        cls, model: TaskModel, rows: Rows, options: TrainingOptions, *, max_length: int, seed: int, micro_tokens: int
    ) -> TrainingSet:
        """Draw rows, tokenise them, and hold some out.

        Raises:
            DatasetInvalid: There are fewer than two rows.
        """
        if len(rows) < 2:
            raise DatasetInvalid(
                "training needs at least two rows: one to learn from and one to judge by", param="task.dataset"
            )
        order: list[int] = torch.randperm(len(rows), generator=generator(seed, "training rows")).tolist()
        order = order[: options.max_train_rows]
        encoded = model.family.encode(model, rows.take(order), model.longest(max_length))
        count = len(encoded.lengths)
        held_out = min(_MOST_HELD_OUT, max(1, round(options.holdout * count)))
        everything = range(count)
        return cls(encoded, tuple(everything[held_out:]), tuple(everything[:held_out]), seed, micro_tokens)

    @property
    def judged(self) -> Mapping[str, tuple[int, ...]]:
        """The held-out rows by kind."""
        kinds = {IN_DOMAIN: self.held_out, OFF_DOMAIN: self.written_held_out}
        return {name: rows for name, rows in kinds.items() if rows}

    def steps(self, batch_size: int) -> int:
        """Count the steps of an epoch."""
        return math.ceil(sum(self._counts()) / batch_size)

    def _counts(self) -> tuple[int, int]:
        """Return how many rows and how many written texts an epoch has."""
        rows, texts, share = len(self.train), len(self.written), self.written_share
        if not texts or share == 0:
            return rows, 0
        if share == 1:
            return 0, texts
        return min(rows, math.ceil(texts * (1 - share) / share)), min(texts, math.ceil(rows * share / (1 - share)))

    def all_steps(self, options: TrainingOptions) -> int:
        """Count the steps of all epochs."""
        return options.epochs * self.steps(options.batch_size)

    def epoch(self, epoch: int, batch_size: int) -> list[list[int]]:
        """Return the rows of each step of an epoch; every row is in exactly one step."""
        draws = generator(self.seed, f"training epoch {epoch}")
        lengths = self.encoded.lengths
        order = self._drawn(draws)
        together = _SORTED_TOGETHER * batch_size
        batches: list[list[int]] = []
        for first in range(0, len(order), together):
            part = [row for _length, row in sorted((lengths[row], row) for row in order[first : first + together])]
            batches += [part[start : start + batch_size] for start in range(0, len(part), batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=draws).tolist()]

    def _drawn(self, draws: torch.Generator) -> list[int]:
        """Draw the rows of an epoch in random order, and the texts among them."""
        rows, texts = self._counts()
        drawn: list[int] = torch.randperm(len(self.train), generator=draws).tolist()
        order = [self.train[i] for i in drawn[:rows]]
        if not texts:
            return order
        own: list[int] = torch.randperm(len(self.written), generator=draws).tolist()
        order += [self.written[i] for i in own[:texts]]
        return [order[i] for i in torch.randperm(len(order), generator=draws).tolist()]

    def batches(self, rows: Sequence[int]) -> list[Batch]:
        """Pad rows into batches of at most ``micro_tokens`` tokens."""
        lengths = self.encoded.lengths
        order = sorted(rows, key=lambda row: (lengths[row], row))
        runs = pack([lengths[row] for row in order], self.micro_tokens) if order else []
        return [self.encoded.batch([order[i] for i in run]) for run in runs]
