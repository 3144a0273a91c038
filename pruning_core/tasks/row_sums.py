"""What metrics need of each row, for the dense and the pruned model: rows can then be drawn again without the models.

`pruning_core.spec.metrics` names one function for each metric and kind of finding, as it names the function that computes the
metric (`QualityMetric.by_rows`). A function takes the findings of both models on the same rows. Nearly every metric is a
function of sums over rows (`RowSums`); a rank correlation is not (`RowRanks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pruning_core.tasks.row_forms import Floats, Ints, RowRanks, RowSums, each, exponential_ratio, means, over, ratio, shares
from pruning_core.tasks.scoring import (
    Classes,
    Decisions,
    Embeddings,
    Losses,
    Replies,
    Scores,
    Tags,
    Texts,
    Tokens,
    reply_matches,
    reply_overlaps,
    rouge_scores,
)


@dataclass(frozen=True, slots=True)
class Changed:
    """Numbers of answers that are not the dense model's.

    Attributes:
        answers: All of them.
        gained: Those that became right.
        lost: Those that became wrong.
        of: What an answer is the answer to.
    """

    answers: int
    gained: int
    lost: int
    of: str


def changes(dense: object, pruned: object) -> Changed | None:
    """Count the answers that changed; None for findings that are no answers, such as scores."""
    match dense, pruned:
        case Classes(), Classes():
            return _changed(dense.found, pruned.found, dense.wanted, "row")
        case Decisions(), Decisions():
            alike = (dense.found == pruned.found).all(-1)
            right = [(own.found == own.wanted).all(-1) for own in (dense, pruned)]
            return _counted(_array(~alike), _array(right[0]), _array(right[1]), "row")
        case Tags(), Tags():
            return _changed(_joined(dense.found), _joined(pruned.found), _joined(dense.wanted), "word")
        case Tokens(), Tokens():
            return _changed(dense.found, pruned.found, dense.wanted, "token")
        case Replies(), Replies():
            before, after = (np.array(reply_matches(own)) > 0 for own in (dense, pruned))
            return _counted(np.array([a != b for a, b in zip(dense.found, pruned.found, strict=True)]), before, after, "row")
        case _:
            return None


def class_accuracy(dense: Classes, pruned: Classes) -> RowSums:
    """Give the right answers."""
    wanted, found, rows = _triples(dense, pruned)
    dense_sums, pruned_sums = (np.stack([own == wanted, np.ones_like(wanted)], axis=-1).astype(float) for own in found)
    return RowSums(dense_sums, pruned_sums, ratio, rows, binary=True)


def class_f1(dense: Classes, pruned: Classes) -> RowSums:
    """Give the right and the two kinds of wrong answers of each class; of two classes, of the second alone."""
    wanted, found, rows = _triples(dense, pruned)
    classes = dense.logits.shape[-1]
    value = partial(_f1, average="binary" if classes == 2 else "macro")
    dense_sums, pruned_sums = (_one_hot([np.where(own == wanted, wanted, -1), *_missed(own, wanted)], classes) for own in found)
    return RowSums(dense_sums, pruned_sums, value, rows)


def matthews(dense: Classes, pruned: Classes) -> RowSums:
    """Give the right answers, and both models' and the labels' numbers of each class."""
    wanted, found, rows = _triples(dense, pruned)
    classes = dense.logits.shape[-1]
    dense_sums, pruned_sums = (_one_hot([np.where(own == wanted, 0, -1), own, wanted], classes) for own in found)
    return RowSums(dense_sums, pruned_sums, _matthews, rows)


def rows_wholly_right(dense: Decisions, pruned: Decisions) -> RowSums:
    """Give the rows for which every class is right."""
    before, after = (_array((own.found == own.wanted).all(-1)) for own in (dense, pruned))
    return shares(before, after)


def decision_f1(dense: Decisions, pruned: Decisions) -> RowSums:
    """Give the right and the two kinds of wrong decisions of each row."""

    def sums(own: Decisions) -> Floats:
        kinds = (own.found & own.wanted, own.found & ~own.wanted, own.wanted & ~own.found)
        return np.stack([_array(kind.sum(-1)) for kind in kinds], axis=-1).astype(float)

    return each(sums(dense), sums(pruned), partial(_f1, average="micro"))


def spearman(dense: Scores, pruned: Scores) -> RowRanks:
    """Give the scores."""
    before, after, wanted = (_array(own).astype(float) for own in (dense.found, pruned.found, dense.wanted))
    return RowRanks(before, after, wanted)


def cosine(dense: Embeddings, pruned: Embeddings) -> RowSums:
    """Give the cosine of each sample; exactly 1 between embeddings and themselves."""
    before, after = (
        np.ones(len(own.found)) if own.found is own.wanted else _array((own.found * own.wanted).sum(-1)).astype(float)
        for own in (dense, pruned)
    )
    return means(before, after)


def tag_accuracy(dense: Tags, pruned: Tags) -> RowSums:
    """Give the right words and all words of each sample."""

    def sums(own: Tags) -> Floats:
        pairs = zip(own.found, own.wanted, strict=True)
        return np.array([(int((found == wanted).sum()), len(wanted)) for found, wanted in pairs], dtype=float)

    return each(sums(dense), sums(pruned), ratio)


def entity_f1(dense: Tags, pruned: Tags) -> RowSums:
    """Give the right, the superfluous and the missed entities of each sample, as seqeval finds them."""
    from seqeval.metrics.sequence_labeling import get_entities

    def entities(tags: Tensor, names: Sequence[str]) -> set[object]:
        return set(cast("Any", get_entities)([names[int(tag)] for tag in tags]))

    def sums(own: Tags) -> Floats:
        pairs = [
            (entities(found, own.names), entities(wanted, own.names))
            for found, wanted in zip(own.found, own.wanted, strict=True)
        ]
        return np.array([(len(a & b), len(a - b), len(b - a)) for a, b in pairs], dtype=float)

    return each(sums(dense), sums(pruned), partial(_f1, average="micro"))


def exact_match(dense: Replies, pruned: Replies) -> RowSums:
    """Give the answers that are right."""
    before, after = (np.array(reply_matches(own)) > 0 for own in (dense, pruned))
    return shares(before, after)


def word_f1(dense: Replies, pruned: Replies) -> RowSums:
    """Give the F1 of each answer's words."""
    return means(np.array(reply_overlaps(dense)), np.array(reply_overlaps(pruned)))


def token_loss(dense: Losses, pruned: Losses) -> RowSums | None:
    """Give the summed loss and the number of counted tokens of each sample."""
    return _losses(dense, pruned, ratio)


def perplexity(dense: Losses, pruned: Losses) -> RowSums | None:
    """Give the summed loss and the number of counted tokens of each sample."""
    return _losses(dense, pruned, exponential_ratio)


def token_accuracy(dense: Tokens, pruned: Tokens) -> RowSums | None:
    """Give the right tokens and the counted tokens of each sample."""
    if dense.rows is None:
        return None
    counts = _array(dense.rows[1]).astype(np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)

    def sums(own: Tokens) -> Floats:
        right = np.bincount(owner, weights=_array(own.found == own.wanted), minlength=len(counts))
        return np.stack([right, counts], axis=-1).astype(float)

    return each(sums(dense), sums(pruned), ratio)


def rouge(dense: Texts, pruned: Texts, *, name: str) -> RowSums:
    """Give the F-measure of each text."""
    return means(np.array(rouge_scores(name, dense)), np.array(rouge_scores(name, pruned)))


def rouge1(dense: Texts, pruned: Texts) -> RowSums:
    """Give ROUGE-1 of each text."""
    return rouge(dense, pruned, name="rouge1")


def rouge2(dense: Texts, pruned: Texts) -> RowSums:
    """Give ROUGE-2 of each text."""
    return rouge(dense, pruned, name="rouge2")


def rouge_l(dense: Texts, pruned: Texts) -> RowSums:
    """Give ROUGE-L of each text."""
    return rouge(dense, pruned, name="rougeL")


def bleu(dense: Texts, pruned: Texts) -> RowSums:
    """Give the n-grams that match, all n-grams, and both lengths of each text."""
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU()

    def sums(own: Texts) -> Floats:
        scores = [scorer.sentence_score(found, [wanted]) for found, wanted in zip(own.found, own.wanted, strict=True)]
        return np.array([(*one.counts, *one.totals, one.sys_len, one.ref_len) for one in scores], dtype=float)

    def value(given: Floats) -> Floats:
        rows = given.reshape(-1, given.shape[-1]).round().astype(int).tolist()
        scores = [BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], smooth_method="exp").score for row in rows]
        return np.array(scores).reshape(given.shape[:-1])

    return each(sums(dense), sums(pruned), value)


def _losses(dense: Losses, pruned: Losses, value: Callable[[Floats], Floats]) -> RowSums | None:
    sides = [
        np.stack([_array(own) for own in one.rows], axis=-1).astype(float) for one in (dense, pruned) if one.rows is not None
    ]
    return each(sides[0], sides[1], value) if len(sides) == 2 else None


def _triples(dense: Classes, pruned: Classes) -> tuple[Ints, tuple[Ints, Ints], Ints]:
    """Group rows by their right class and both models' classes: the groups' classes, and their numbers of rows."""
    classes = dense.logits.shape[-1]
    wanted, before, after = (_array(own).astype(np.int64) for own in (dense.wanted, dense.found, pruned.found))
    codes, rows = np.unique((wanted * classes + before) * classes + after, return_counts=True)
    return codes // classes**2, (codes // classes % classes, codes % classes), rows.astype(np.int64)


def _missed(found: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """Return the class of each wrong answer, and of each wanted one that was not given; -1 where the answer is right."""
    return np.where(found == wanted, -1, found), np.where(found == wanted, -1, wanted)


def _one_hot(columns: Sequence[Ints], classes: int) -> Any:
    """Return a sparse array with one 1 for each index that is not -1: (groups, columns x classes)."""
    from scipy.sparse import csr_array

    rows = np.concatenate([np.flatnonzero(own >= 0) for own in columns])
    entries = np.concatenate([own[own >= 0] + at * classes for at, own in enumerate(columns)])
    return csr_array((np.ones(len(rows)), (rows, entries)), shape=(len(columns[0]), len(columns) * classes))


def _changed(before: Tensor, after: Tensor, wanted: Tensor, of: str) -> Changed:
    return _counted(_array(before != after), _array(before == wanted), _array(after == wanted), of)


def _counted(differ: NDArray[np.bool_], before: NDArray[np.bool_], after: NDArray[np.bool_], of: str) -> Changed:
    return Changed(int(differ.sum()), int((after & ~before).sum()), int((before & ~after).sum()), of)


def _joined(own: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(own))


def _array(own: Tensor) -> NDArray[Any]:
    return own.numpy()


def _f1(sums: Floats, average: str) -> Floats:
    """Compute F1 from right, superfluous and missed answers: each (..., classes), one after the other."""
    right, extra, missed = np.split(sums, 3, axis=-1)
    whole = 2 * right + extra + missed
    own = over(2 * right, whole, 0.0)
    if average == "binary":
        return own[..., 1]
    if average == "micro":
        return own[..., 0]
    return over(own.sum(-1), (whole > 0).sum(-1).astype(float), 0.0)  # classes that nobody names do not count


def _matthews(sums: Floats) -> Floats:
    """Compute Matthews' correlation of several classes (Gorodkin 2004); 0 where one side has one class only."""
    right, found, wanted = np.split(sums, 3, axis=-1)
    total = wanted.sum(-1)
    both = right[..., 0] * total - (found * wanted).sum(-1)
    spread = (total**2 - (found**2).sum(-1)) * (total**2 - (wanted**2).sum(-1))
    return over(both, np.sqrt(np.maximum(spread, 0.0)), 0.0)
