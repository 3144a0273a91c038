"""Embedders on texts: halves of a piece that find each other, similarities and neighbours as the dense model has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pruning_core.data.ledger_texts import pieces_of
from pruning_core.data.rows import Rows
from pruning_core.measure.ledger.base import Tell, TokenPart, in_batches
from pruning_core.measure.ledger.rows import Subject
from pruning_core.report.ledger import LedgerRow
from pruning_core.spec.prune import TaskSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.row_forms import RowRanks, shares


def halves_of(texts: Sequence[str], most: int) -> list[tuple[str, str]]:
    """Cut texts into pieces, and each piece into two halves; return some of them, evenly spaced."""
    found = pieces_of(texts)
    if len(found) <= most:
        return found
    return [found[int(at)] for at in np.linspace(0, len(found) - 1, most)]


@dataclass(frozen=True, slots=True)
class PiecesPart(TokenPart):
    """Embeddings of the halves of pieces: first and second half of each, in turn."""

    @classmethod
    def of(cls, model: TaskModel, task: TaskSpec, name: str, halves: Sequence[tuple[str, str]], limit: int) -> PiecesPart:
        """Make one; there is at least one piece."""
        texts = tuple((own,) for pair in halves for own in pair)
        if task.type == "sentence-similarity":  # whose rows are pairs
            texts = tuple(halves)
        encoded = model.family.encode(model, Rows(texts, None), model.longest(limit))
        return cls(name, in_batches(model, encoded), task)

    def observe(self, model: TaskModel, on_step: Tell) -> Tensor:
        """Keep the embeddings in unit length, (pieces, halves, values)."""
        found = torch.stack(self.seen(model, on_step)).double()
        return torch.nn.functional.normalize(found, dim=-1).view(len(found) // 2, 2, -1)

    def rows(self, dense: Tensor, pruned: Tensor, seed: int) -> list[LedgerRow]:
        """Judge both."""
        retrieval, similarity, neighbours = self.subjects
        retrieval = replace(retrieval, chance=1 / len(dense))
        before, after = (_finds(own) for own in (dense, pruned))
        theirs, ours = (_pairs(own) for own in (dense, pruned))
        same = (_nearest(dense) == _nearest(pruned)).numpy()
        return [
            retrieval.row(shares(before, after), seed),
            similarity.row(RowRanks(theirs, ours, theirs), seed),
            neighbours.row(shares(np.ones_like(same), same), seed),
        ]

    @property
    def subjects(self) -> tuple[Subject, Subject, Subject]:
        """Retrieval, similarities and neighbours."""
        return (
            Subject(self.name, "retrieval", "piece"),
            Subject(self.name, "similarity", "pair"),
            Subject(self.name, "neighbours", "piece"),
        )


def _finds(halves: Tensor) -> np.ndarray:
    """Return which first halves are nearest to their own second half among all second halves."""
    nearest = (halves[:, 0] @ halves[:, 1].T).argmax(-1)
    return (nearest == torch.arange(len(halves))).numpy()


def _pairs(halves: Tensor) -> np.ndarray:
    """Return the similarities of disjoint pairs: a half of them of one piece, the others of a piece and the next such."""
    second = torch.arange(len(halves))
    strangers = second[1::2].clone()
    second[1::2] = strangers.roll(-1)
    return (halves[:, 0] * halves[second, 1]).sum(-1).numpy()


def _nearest(halves: Tensor) -> Tensor:
    similar = halves[:, 0] @ halves[:, 0].T
    return similar.fill_diagonal_(-torch.inf).argmax(-1)
