"""Findings, which metrics compare, and the functions that compute the metrics.

`pruning_core.spec.metrics` names one function for each metric and kind of finding. A function takes the finding of one model
and returns the metric's value. Metric libraries are imported by the functions that use them.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any, SupportsFloat, cast

import torch
from torch import Tensor

from pruning_core.shapes import Bool, Float, Int
from pruning_core.spec.metrics import METRICS, Metric


@dataclass(frozen=True, slots=True)
class Classes:
    """Logits of the classes and the right class for each sample."""

    logits: Float[Tensor, "n c"]
    wanted: Int[Tensor, " n"]

    @property
    def found(self) -> Int[Tensor, " n"]:
        """The likeliest class of each sample."""
        return self.logits.argmax(-1)


@dataclass(frozen=True, slots=True)
class Decisions:
    """A yes or no for each sample and class: the model's and the right one."""

    found: Bool[Tensor, "n c"]
    wanted: Bool[Tensor, "n c"]


@dataclass(frozen=True, slots=True)
class Scores:
    """A score for each sample: the model's and the right one."""

    found: Float[Tensor, " n"]
    wanted: Float[Tensor, " n"]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of unit length and the embeddings that they should be: for the dense model, the same tensor."""

    found: Float[Tensor, "n d"]
    wanted: Float[Tensor, "n d"]


@dataclass(frozen=True, slots=True)
class Tags:
    """A class for each counted word of each sample, the model's and the right one; and the names of the classes."""

    found: Sequence[Int[Tensor, " w"]]
    wanted: Sequence[Int[Tensor, " w"]]
    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Replies:
    """The model's answer to each question, and the answers that count as right: none where the question has no answer."""

    found: Sequence[str]
    wanted: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Losses:
    """The mean negative log-likelihood a token; and each sample's sum, with the number of tokens that it is over."""

    mean: float
    rows: tuple[Float[Tensor, " n"], Float[Tensor, " n"]] | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Tokens(Losses):
    """The mean loss a token, and the likeliest and the right token at each counted position."""

    found: Int[Tensor, " t"]
    wanted: Int[Tensor, " t"]


@dataclass(frozen=True, slots=True)
class Texts:
    """The text that the model generated for each sample, and the reference text."""

    found: Sequence[str]
    wanted: Sequence[str]


def metric_of(metric: Metric, finding: str) -> Callable[[object], float]:
    """Import the function that computes a metric from a kind of finding."""
    return cast("Callable[[object], float]", resolve_name(METRICS[metric].computed[finding]))


def constant_quality(compute: Callable[[object], float], seen: object) -> float | None:
    """Compute a metric for always giving the same answer: the best of the answers that are worth trying.

    Args:
        compute: The metric's function.
        seen: A finding, for its right answers.

    Returns:
        The metric; None for findings without classes.
    """
    match seen:
        case Classes():
            answers = {int(seen.wanted.mode().values), *([1] if seen.logits.shape[-1] == 2 else [])}  # f1 is that of class 1
            return max(compute(Classes(_always(answer, seen.logits), seen.wanted)) for answer in sorted(answers))
        case Decisions():
            commonest = _always(int(seen.wanted.sum(0).argmax()), seen.wanted.double()).bool()
            return max(compute(Decisions(own, seen.wanted)) for own in (commonest, torch.zeros_like(commonest)))
        case Tags():
            answer = int(torch.cat(list(seen.wanted)).mode().values)
            return compute(Tags([torch.full_like(own, answer) for own in seen.wanted], seen.wanted, seen.names))
        case _:
            return None


def _always(answer: int, like: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    found = torch.zeros_like(like)
    found[:, answer] = 1
    return found


def class_accuracy(seen: Classes) -> float:
    """Compute the share of samples whose class is right."""
    from sklearn import metrics

    return float(metrics.accuracy_score(cast("Any", seen.wanted.numpy()), cast("Any", seen.found.numpy())))


def class_f1(seen: Classes) -> float:
    """Compute F1: of the second class where there are two, else the mean over the classes of their own F1."""
    from sklearn import metrics

    average, none = "binary" if seen.logits.shape[-1] == 2 else "macro", cast("Any", 0.0)
    wanted, found = cast("Any", seen.wanted.numpy()), cast("Any", seen.found.numpy())
    return float(metrics.f1_score(wanted, found, average=average, zero_division=none))


def matthews(seen: Classes) -> float:
    """Compute Matthews' correlation; 0 where one side has one class only, as is usual."""
    from sklearn import metrics

    if any(len(own.unique()) < 2 for own in (seen.found, seen.wanted)):
        return 0.0
    return float(metrics.matthews_corrcoef(cast("Any", seen.wanted.numpy()), cast("Any", seen.found.numpy())))


def rows_wholly_right(seen: Decisions) -> float:
    """Compute the share of samples for which every class is right."""
    return float((seen.found == seen.wanted).all(-1).double().mean())


def decision_f1(seen: Decisions) -> float:
    """Compute F1 over all decisions together (micro F1)."""
    return _decision_f1(seen, "micro")


def decision_f1_macro(seen: Decisions) -> float:
    """Compute the mean over the classes of their own F1 (macro F1)."""
    return _decision_f1(seen, "macro")


def _decision_f1(seen: Decisions, average: str) -> float:
    from sklearn import metrics

    none: Any = 0.0  # scikit-learn's stubs want a string
    return float(metrics.f1_score(seen.wanted.numpy(), seen.found.numpy(), average=average, zero_division=none))


def spearman(seen: Scores) -> float:
    """Compute Spearman's rank correlation; NaN where the scores of a side are all alike, or there is one only."""
    from scipy.stats import spearmanr

    if any(len(own.unique()) < 2 for own in (seen.found, seen.wanted)):
        return math.nan
    return float(cast("SupportsFloat", spearmanr(seen.found.numpy(), seen.wanted.numpy())[0]))


def cosine(seen: Embeddings) -> float:
    """Compute the mean cosine; exactly 1 between embeddings and themselves."""
    return 1.0 if seen.found is seen.wanted else float((seen.found * seen.wanted).sum(-1).mean())


def tag_accuracy(seen: Tags) -> float:
    """Compute the share of words whose class is right."""
    return share_alike(seen.found, seen.wanted)


def share_alike(found: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Compute the share of entries that are the same."""
    return float((torch.cat(list(found)) == torch.cat(list(others))).double().mean())


def entity_f1(seen: Tags) -> float:
    """Compute seqeval's F1: an entity is right when both its ends and its type are."""
    from seqeval.metrics import f1_score

    def named(tags: Sequence[Tensor]) -> list[list[str]]:
        return [[seen.names[int(tag)] for tag in own] for own in tags]

    score: Any = f1_score
    return float(score(named(seen.wanted), named(seen.found), zero_division=0))


def exact_match(seen: Replies) -> float:
    """Compute the share of answers that are right, as SQuAD does (Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1).

    Texts are compared without case, punctuation, articles and extra spaces. The best match among the right answers counts. For
    a question without an answer, the empty text is right.
    """
    return _mean(reply_matches(seen))


def word_f1(seen: Replies) -> float:
    """Compute F1 over the words of answers, as SQuAD does: see `exact_match`."""
    return _mean(reply_overlaps(seen))


def reply_matches(seen: Replies) -> list[float]:
    """Return 1 for each answer that is right, and else 0."""
    return _best(seen, lambda own, right: float(own == right))


def reply_overlaps(seen: Replies) -> list[float]:
    """Return F1 over the words of each answer."""
    return _best(seen, lambda own, right: _overlap(own.split(), right.split()))


def _best(seen: Replies, compare: Callable[[str, str], float]) -> list[float]:
    return [
        max(compare(_plain(own), _plain(one)) for one in right or ("",))
        for own, right in zip(seen.found, seen.wanted, strict=True)
    ]


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def _plain(text: str) -> str:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _overlap(found: Sequence[str], right: Sequence[str]) -> float:
    if not found or not right:
        return float(found == right)
    common = sum((Counter(found) & Counter(right)).values())
    return 2 * common / (len(found) + len(right))


def token_loss(seen: Losses) -> float:
    """Return the mean loss a token."""
    return seen.mean


def perplexity(seen: Losses) -> float:
    """Compute the exponential of the loss a token, capped at e^700: a useless model must not overflow."""
    return math.exp(min(seen.mean, 700.0))


def token_accuracy(seen: Tokens) -> float:
    """Compute the share of tokens that are right."""
    return float((seen.found == seen.wanted).double().mean())


def rouge1(seen: Texts) -> float:
    """Compute ROUGE-1 (Lin 2004): the mean F-measure over the samples."""
    return _mean(rouge_scores("rouge1", seen))


def rouge2(seen: Texts) -> float:
    """Compute ROUGE-2."""
    return _mean(rouge_scores("rouge2", seen))


def rouge_l(seen: Texts) -> float:
    """Compute ROUGE-L."""
    return _mean(rouge_scores("rougeL", seen))


def rouge_scores(name: str, seen: Texts) -> list[float]:
    """Return the F-measure of each text."""
    from rouge_score import rouge_scorer

    scorer: Any = rouge_scorer.RougeScorer([name], use_stemmer=False)
    return [float(scorer.score(right, own)[name].fmeasure) for right, own in zip(seen.wanted, seen.found, strict=True)]


def bleu(seen: Texts) -> float:
    """Compute corpus BLEU, from 0 to 100."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(seen.found), [list(seen.wanted)]).score)
