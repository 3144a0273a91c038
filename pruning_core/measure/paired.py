"""How sure a measured quality is: intervals and a test from the same rows, judged by the dense and by the pruned model.

Rows are drawn again with replacement, both models' together (paired bootstrap; Efron and Tibshirani 1993, chapter 13).
Intervals are percentiles: tests/unit/core/test_paired.py shows their coverage. The share of right rows has forms of its own,
as draws of few changed rows tell little: Wilson's interval, Bonett and Price's for the difference (J. Educ. Behav. Stat. 37,
2012, 479), McNemar's exact test. Elsewhere the test exchanges the models' answers within rows. The cost is that of `DRAWS`
weighted sums over the rows; memory is bounded.

Our deviation: rows are not drawn within the classes of their labels. Validation rows are themselves a sample, with shares of
classes that are chance; drawn within classes, the intervals of F1 covered 84 to 91 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from pruning_core.tasks.row_forms import Floats, Ints, RowForm, RowRanks, RowSums

CONFIDENCE = 0.95
# With fewer rows the spread among them says too little of the spread among all others.
LEAST_ROWS = 10
DRAWS = 2000
# Entries of the largest arrays: 2 MiB each, which stay in a processor's own memory.
_PORTION = 2**18
# Draws for which a metric may be undefined, as a correlation of equal scores is.
_MOST_UNDEFINED = 0.01


@dataclass(frozen=True, slots=True)
class Range:
    """The ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Draws:
    """A metric of both models for each draw of rows, and what is known without draws.

    Attributes:
        dense: The dense model's metric, (draws,).
        pruned: The pruned model's metric on the same rows.
        form: The rows.
    """

    dense: Floats
    pruned: Floats
    form: RowForm

    def range_of(self, share: float, confidence: float) -> Range:
        """Return the interval of the pruned model's metric less a share of the dense model's."""
        if isinstance(self.form, RowSums) and self.form.binary:
            return _range_of_shares(self.form, share, confidence)
        low, high = np.quantile(self.pruned - share * self.dense, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Range(float(low), float(high))

    def range_of_one(self, side: str, confidence: float) -> Range:
        """Return the interval of one model's metric, ``dense`` or ``pruned``."""
        form, values = self.form, self.dense if side == "dense" else self.pruned
        if isinstance(form, RowSums) and form.binary:
            from scipy.stats import binomtest

            right, rows = form.rows @ (form.dense if side == "dense" else form.pruned)
            found = binomtest(round(right), round(rows)).proportion_ci(confidence, method="wilson")
            return Range(float(found.low), float(found.high))
        low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Range(float(low), float(high))


@dataclass(frozen=True, slots=True)
class Chance:
    """A test of whether the difference could be chance: its name, and the probability of one as large or larger."""

    test: Literal["mcnemar", "permutation"]
    p_value: float


def draw(form: RowForm, seed: int, draws: int = DRAWS) -> Draws | str:
    """Draw the rows again, and compute the metric of both models each time.

    Args:
        form: What the metric needs of each row.
        seed: Of the draws.
        draws: How often.

    Returns:
        The draws; or the reason, in words, why there are none.
    """
    rows = int(form.rows.sum())
    if rows < LEAST_ROWS:
        return f"{rows} {'row is' if rows == 1 else 'rows are'} too few, an interval needs {LEAST_ROWS}"
    parts = [form.values(weights) for weights in _weights(form, draws, _generator(seed, "bootstrap"))]
    dense, pruned = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    finite = np.isfinite(dense) & np.isfinite(pruned)
    if finite.mean() < 1 - _MOST_UNDEFINED:
        return "the metric is undefined when rows are drawn again: nearly all scores, or nearly all labels, are alike"
    return Draws(dense[finite], pruned[finite], form)


def chance(form: RowForm, seed: int) -> Chance:
    """Test whether the models differ: McNemar's exact test for the share of right rows, else a permutation within rows."""
    if isinstance(form, RowSums) and form.binary:
        from scipy.stats import binomtest

        change = (form.pruned - form.dense)[:, 0]
        gained, lost = (int(form.rows[change == sign].sum()) for sign in (1, -1))
        exact = binomtest(min(gained, lost), gained + lost).pvalue if gained + lost else 1.0
        return Chance("mcnemar", float(exact))
    return Chance("permutation", _permuted(form.as_sums() if isinstance(form, RowRanks) else form, seed))


def _permuted(form: RowSums, seed: int) -> float:
    """Exchange the models' answers at random within rows: the share of draws with as large a difference as there is."""
    differing = np.flatnonzero(_differing(form))
    if not len(differing):
        return 1.0
    change, rows = (form.pruned - form.dense)[differing], form.rows[differing]
    dense, pruned = form.rows @ form.dense, form.rows @ form.pruned
    found = abs(float(form.value(pruned) - form.value(dense)))
    rng, as_large, portion = _generator(seed, "permutation"), 1, max(1, _PORTION // len(rows))
    for start in range(0, DRAWS, portion):
        shape = (min(portion, DRAWS - start), len(rows))
        swapped = rng.integers(0, 2, shape, dtype=np.int8) if (rows == 1).all() else rng.binomial(rows, 0.5, shape)
        moved = swapped.astype(np.float64) @ change
        apart = np.abs(form.value(pruned - moved) - form.value(dense + moved))
        as_large += int((apart >= found * (1 - 1e-9)).sum())
    return as_large / (DRAWS + 1)


def _range_of_shares(form: RowSums, share: float, confidence: float) -> Range:
    """Return the interval of the pruned model's share of right rows less a part of the dense model's.

    Bonett and Price: the mean over the rows, with one more row that became right and one that became wrong, and its normal
    interval. Theirs is the difference itself; a part of the dense model's share changes the rows' values alone.
    """
    from scipy.stats import norm

    dense, pruned = np.append(form.dense[:, 0], [0.0, 1.0]), np.append(form.pruned[:, 0], [1.0, 0.0])
    rows, values = np.append(form.rows, [1, 1]), pruned - share * dense
    mean = float(rows @ values) / rows.sum()
    error = np.sqrt(float(rows @ (values - mean) ** 2) / rows.sum() ** 2)
    reach = float(norm.ppf((1 + confidence) / 2)) * error
    return Range(float(mean - reach), float(mean + reach))


def _differing(form: RowForm) -> Floats:
    """Return which groups differ between the models."""
    if isinstance(form, RowRanks):
        return cast("Floats", form.dense != form.pruned)
    change = form.pruned - form.dense
    return cast("Floats", np.asarray(abs(change).sum(axis=1)).ravel() > 0)


def _weights(form: RowForm, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each group is drawn, in portions of draws: as many rows as there are."""
    portion = max(1, _PORTION // max(len(form.rows), int(form.rows.sum())))
    for start in range(0, draws, portion):
        yield _drawn(form.rows, min(portion, draws - start), rng)


def _drawn(rows: Ints, draws: int, rng: np.random.Generator) -> Floats:
    """Draw as many rows as there are; count those of each group."""
    total, groups = int(rows.sum()), len(rows)
    if groups * 8 <= total:
        return rng.multinomial(total, rows / total, size=draws).astype(np.float64)
    picked = rng.integers(0, total, (draws, total), dtype=np.int32)
    if groups < total:
        picked = np.repeat(np.arange(groups, dtype=np.int32), rows).take(picked)
    return np.stack([np.bincount(one, minlength=groups) for one in picked]).astype(np.float64)


def _generator(seed: int, purpose: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
