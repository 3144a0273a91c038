"""Intervals, tests and words of a paired comparison."""

import math
import time

import numpy as np
import pytest
import torch

from pruning_core.measure.certainty import rows_of
from pruning_core.measure.paired import CONFIDENCE, LEAST_ROWS, Draws, chance, draw
from pruning_core.report.quality_words import difference_words
from pruning_core.spec.metrics import METRICS
from pruning_core.tasks import row_sums
from pruning_core.tasks.base import Judged
from pruning_core.tasks.row_forms import RowRanks, RowSums
from pruning_core.tasks.row_sums import changes
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
    metric_of,
)
from tests.compared import classes_of, judge

MANY = 50_000
COVERED = (0.93, 0.97)


# --- the rows of each metric add up to the metric ---------------------------------------------------------------------


def _drawn(rows, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, classes, (rows,), generator=generator)


def _findings():
    generator = torch.Generator().manual_seed(1)
    for classes in (2, 5):
        wanted = _drawn(80, classes, 2)
        yield "classes", tuple(Classes(torch.randn(80, classes, generator=generator), wanted) for _ in range(2))
    wanted = torch.rand(40, 4, generator=generator) > 0.6
    yield "decisions", tuple(Decisions(torch.rand(40, 4, generator=generator) > 0.5, wanted) for _ in range(2))
    truth = (4 * torch.rand(60, generator=generator)).round()
    yield "scores", tuple(Scores((truth + torch.randn(60, generator=generator)).round(), truth) for _ in range(2))
    before, after = (torch.nn.functional.normalize(torch.randn(30, 6, generator=generator), dim=-1) for _ in range(2))
    yield "embeddings", (Embeddings(before, before), Embeddings(after, before))
    names = ("O", "B-A", "I-A", "B-B", "I-B")
    tags = [_drawn(7, 5, seed) for seed in range(20)]
    yield "tags", tuple(Tags([_drawn(7, 5, 100 * side + seed) for seed in range(20)], tags, names) for side in (1, 2))
    rights = [("the red fox",), ("a dog", "dogs"), ()] * 5
    yield (
        "replies",
        (
            Replies(["red fox", "dogs bark", ""] * 5, rights),
            Replies(["fox", "the cat", "none", "red fox", "dog"] * 3, rights),
        ),
    )
    counts = _drawn(25, 9, 3) + 1
    total = int(counts.sum())
    truth = _drawn(total, 6, 4)
    sides = []
    for side in (5, 6):
        sums = counts * (1 + torch.rand(25, generator=generator, dtype=torch.float64))
        sides.append(Tokens(float(sums.sum()) / total, _drawn(total, 6, side), truth, rows=(sums, counts)))
    yield "tokens", tuple(sides)
    yield "losses", tuple(Losses(own.mean, rows=own.rows) for own in sides)
    wanted = ["the cat sat on the mat today", "a small house by the sea", "we went home", "it rains in the hills"] * 4
    yield (
        "texts",
        (
            Texts([text.replace("the", "a") for text in wanted], wanted),
            Texts([text + " again and again" for text in wanted], wanted),
        ),
    )


FINDINGS = list(_findings())
CELLS = [
    pytest.param(metric, finding, pair, id=f"{metric}-{finding}-{place}")
    for place, (finding, pair) in enumerate(FINDINGS)
    for metric, row in METRICS.items()
    if finding in row.computed
]


def test_every_metric_says_what_it_needs_of_rows():
    assert {(metric, finding) for metric, row in METRICS.items() for finding in row.computed} == {
        (cell.values[0], cell.values[1]) for cell in CELLS
    }
    assert all(row.by_rows.keys() == row.computed.keys() for row in METRICS.values())


@pytest.mark.parametrize(("metric", "finding", "pair"), CELLS)
def test_the_rows_add_up_to_the_metric(metric, finding, pair):
    form = rows_of(metric, finding, Judged(pair[0], pair[1], 1, {}))
    compute = metric_of(metric, finding)
    expected = [compute(own) for own in pair]
    dense, pruned = form.values(form.rows[None].astype(float))
    assert [float(dense[0]), float(pruned[0])] == pytest.approx(expected, rel=1e-5)
    if isinstance(form, RowRanks):
        sums = form.as_sums()
        assert [float(sums.value(sums.rows @ own)) for own in (sums.dense, sums.pruned)] == pytest.approx(expected)


@pytest.mark.parametrize(("metric", "finding", "pair"), CELLS)
def test_a_model_beside_itself_differs_by_nothing(metric, finding, pair):
    form = rows_of(metric, finding, Judged(pair[0], pair[0], 1, {}))
    draws = draw(form, seed=0)
    assert isinstance(draws, Draws)
    assert (draws.dense == draws.pruned).all()
    found = draws.range_of(1.0, CONFIDENCE)
    assert found.low <= 0 <= found.high
    assert chance(form, seed=0).p_value == 1
    assert (found.low < 0 < found.high) == (isinstance(form, RowSums) and form.binary)


@pytest.mark.parametrize(("metric", "finding", "pair"), CELLS)
def test_draws_are_those_of_a_plain_bootstrap(metric, finding, pair):
    """The oracle draws rows with replacement and computes the metric of each draw by its sums, one draw at a time."""
    form = rows_of(metric, finding, Judged(pair[0], pair[1], 1, {}))
    rng = np.random.default_rng(7)
    owner = np.repeat(np.arange(len(form.rows)), form.rows)
    plain = []
    for _ in range(400):
        weights = np.bincount(rng.choice(owner, len(owner)), minlength=len(form.rows)).astype(float)
        dense, pruned = form.values(weights[None])
        plain.append(float(pruned[0] - dense[0]))
    draws = draw(form, seed=3)
    found = draws.pruned - draws.dense
    spread = float(np.std(plain))
    assert float(found.mean()) == pytest.approx(float(np.mean(plain)), abs=0.3 * spread)
    assert float(found.std()) == pytest.approx(spread, rel=0.2)


# --- coverage ---------------------------------------------------------------------------------------------------------


def _world(kind):
    """A large set of rows of which samples are drawn: its own metrics are the true ones."""
    generator = torch.Generator().manual_seed(1)

    def noise():
        return torch.randn(MANY, generator=generator)

    if kind == "classes":
        wanted, shared = (torch.rand(MANY, generator=generator) < 0.3).long(), noise()
        dense, pruned = 1.6 * (2 * wanted - 1) + 1.2 * shared + noise(), 1.5 * (2 * wanted - 1) + 1.2 * shared + 0.6 + noise()
        return tuple(Classes(torch.stack([-own, own], -1), wanted) for own in (dense, pruned))
    if kind == "scores":
        wanted, shared = ((noise() + 2.5) * 2).round().clamp(0, 10) / 2, noise()
        return tuple(Scores(wanted + 0.6 * shared + own * noise(), wanted) for own in (0.3, 0.6))
    counts = torch.randint(20, 128, (MANY,), generator=generator).double()
    base = 3 + 0.4 * noise().double()
    harder = base * 1.03 + 0.1 * noise().double()
    return tuple(Losses(0.0, rows=(counts * own, counts)) for own in (base, harder))


def _picked(seen, rows):
    match seen:
        case Classes():
            return Classes(seen.logits[rows], seen.wanted[rows])
        case Scores():
            return Scores(seen.found[rows], seen.wanted[rows])
        case _:
            return Losses(0.0, rows=tuple(own[rows] for own in seen.rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "kind", "finding", "rows"),
    [
        ("accuracy", "classes", "classes", 300),
        ("f1", "classes", "classes", 300),
        ("matthews", "classes", "classes", 300),
        ("spearman", "scores", "scores", 150),
        ("perplexity", "losses", "tokens", 200),
    ],
)
@pytest.mark.long
def test_intervals_hold_the_truth_as_often_as_they_say(metric, kind, finding, rows):
    world = _world(kind)
    give = getattr(row_sums, {"accuracy": "class_accuracy", "f1": "class_f1"}.get(metric, metric))
    whole = give(*world)
    sums = whole.as_sums() if isinstance(whole, RowRanks) else whole
    dense, pruned = (float(sums.value(sums.rows @ own)) for own in (sums.dense, sums.pruned))
    rng, held = np.random.default_rng(5), np.zeros(3)
    for sample in range(1000):
        index = torch.from_numpy(rng.integers(0, MANY, rows))
        draws = draw(give(*(_picked(own, index) for own in world)), sample, draws=1000)
        ends = (draws.range_of(1.0, CONFIDENCE), *(draws.range_of_one(side, CONFIDENCE) for side in ("dense", "pruned")))
        held += [found.low <= true <= found.high for found, true in zip(ends, (pruned - dense, dense, pruned), strict=True)]
    shares = held / 1000
    print(metric, finding, shares.tolist())  # noqa: T201 - the figures of the decision record
    assert ((shares >= COVERED[0]) & (shares <= COVERED[1])).all(), shares


@pytest.mark.slow
def test_chance_is_said_as_often_as_it_is():
    """Two models that are equally good are told apart at p < 0.05 in no more than one sample in twenty."""
    rng, told = np.random.default_rng(2), np.zeros(2)
    for sample in range(400):
        wanted = rng.integers(0, 2, 200)
        shared = rng.random(200) < 0.7
        sides = [np.where(shared | (rng.random(200) < 0.5), wanted, 1 - wanted) for _ in range(2)]
        pair = classes_of(wanted, *sides)
        told += [chance(give(*pair), sample).p_value < 0.05 for give in (row_sums.class_accuracy, row_sums.class_f1)]
    assert (told / 400 <= 0.07).all(), told


@pytest.mark.slow
def test_few_changed_rows_are_held_too():
    """One answer in 300 changes: samples in which none does, or all in one direction, are common, and no certainty."""
    rng, held, drawn = np.random.default_rng(4), 0, 0
    for sample in range(1000):
        change = rng.choice([0, 1, -1], 400, p=[1 - 1 / 300, 1 / 1200, 3 / 1200])
        wanted, right = np.ones(400, dtype=int), rng.random(400) < 0.85
        before, after = (
            np.where(change == 0, right, change < 0).astype(int),
            np.where(change == 0, right, change > 0).astype(int),
        )
        draws = draw(row_sums.class_accuracy(*classes_of(wanted, before, after)), sample, draws=400)
        found = draws.range_of(1.0, CONFIDENCE)
        held += found.low <= -1 / 600 <= found.high
        low, high = np.quantile(draws.pruned - draws.dense, [0.025, 0.975])
        drawn += low <= -1 / 600 <= high
    print("few changes", held / 1000, "by draws alone", drawn / 1000)  # noqa: T201 - the figures of the decision record
    assert held >= 930
    assert drawn < 930, "why the share of right rows has a form of its own"


def test_bonett_and_price_by_hand():
    # 2 gained and 8 lost of 40: (3 - 9) / 42, and the root of (3 + 9 - 36 / 42) / 42^2.
    form = row_sums.class_accuracy(*classes_of([1] * 40, [1] * 38 + [0] * 2, [0] * 8 + [1] * 32))
    found = draw(form, 0).range_of(1.0, 0.95)
    centre, error = -6 / 42, math.sqrt(12 - 36 / 42) / 42
    assert (found.low, found.high) == pytest.approx((centre - 1.959964 * error, centre + 1.959964 * error), rel=1e-5)


# --- tests by hand ----------------------------------------------------------------------------------------------------


def test_mcnemar_by_hand():
    # 8 rows became wrong and 2 right: 2 x P(at most 2 of 10 heads) = 2 x 56 / 1024.
    wanted = [1] * 40
    dense, pruned = [1] * 38 + [0] * 2, [0] * 8 + [1] * 32
    form = row_sums.class_accuracy(*classes_of(wanted, dense, pruned))
    assert chance(form, 0).test == "mcnemar"
    assert chance(form, 0).p_value == pytest.approx(112 / 1024)
    found = changes(*classes_of(wanted, dense, pruned))
    assert (found.answers, found.gained, found.lost, found.of) == (10, 2, 8, "row")


def test_a_permutation_by_hand():
    # 12 rows whose loss is 1 more, without exception: only the two draws of 4096 that exchange all or none are as far apart.
    counts = torch.ones(12, dtype=torch.float64)
    sides = [Losses(0.0, rows=(own * torch.ones(12, dtype=torch.float64), counts)) for own in (2.0, 3.0)]
    found = chance(row_sums.token_loss(*sides), 0)
    assert found.test == "permutation"
    assert found.p_value < 0.003


def test_a_share_of_right_rows_has_wilsons_interval():
    form = row_sums.class_accuracy(*classes_of([1] * 50, [1] * 50, [1] * 45 + [0] * 5))
    draws = draw(form, 0)
    z, n, p = 1.959964, 50, 0.9
    centre, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2) / (1 + z * z / n),
    )
    found = draws.range_of_one("pruned", 0.95)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), rel=1e-5)
    everything = draws.range_of_one("dense", 0.95)
    assert everything.low < 0.95, "fifty right answers of fifty are no certainty"


def test_the_same_seed_draws_the_same():
    pair = classes_of(_drawn(90, 2, 0), _drawn(90, 2, 1), _drawn(90, 2, 2))
    first, again, other = (judge("text-classification", "f1", *pair, seed=seed).quality for seed in (0, 0, 1))
    assert first == again
    assert first.difference.low != other.difference.low


# --- bad input --------------------------------------------------------------------------------------------------------


def test_few_rows_have_no_interval_and_it_is_said():
    for rows, words in ((1, "1 row is too few"), (LEAST_ROWS - 1, "9 rows are too few")):
        found = judge("text-classification", "accuracy", *classes_of([0, 1] * 5, [0] * 10, [1] * 10)).quality
        assert found.difference is not None
        found = judge("text-classification", "accuracy", *classes_of(([0, 1] * 5)[:rows], [0] * rows, [1] * rows)).quality
        assert found.difference is found.interval_dense is found.interval_pruned is None
        assert words in found.no_interval
        assert words in difference_words(found)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_one_class_and_rows_that_are_all_alike(metric):
    found = judge("text-classification", metric, *classes_of([1] * 30, [1] * 30, [1] * 30)).quality
    assert found.difference.value == 0
    assert found.difference.low <= 0 <= found.difference.high
    assert found.difference.p_value == 1
    if metric != "accuracy":  # the share of right rows has a bound on what the rows could not show
        assert (found.difference.low, found.difference.high) == (0, 0)
        assert "do not tell how far apart" in found.no_interval


def test_a_constant_difference_has_no_spread_and_it_is_said():
    counts = torch.ones(30, dtype=torch.float64)
    sides = [Losses(own, rows=(own * counts, counts)) for own in (2.0, 3.0)]
    found = judge("text-generation", "loss", *(Tokens(own.mean, counts.long(), counts.long(), rows=own.rows) for own in sides))
    assert (found.quality.difference.low, found.quality.difference.high) == (1, 1)
    assert "no spread" in found.quality.no_interval
    assert "interval without width (95 %)" in difference_words(found.quality)


def test_scores_that_are_all_alike_have_no_interval():
    truth = torch.arange(30.0)
    found = judge("regression", "spearman", Scores(truth.clone(), truth), Scores(torch.ones(30), truth)).quality
    assert found.undefined
    assert found.difference is None
    assert "all alike" in found.no_interval


def test_scores_that_are_nearly_all_alike_have_no_interval():
    truth = torch.arange(30.0)
    odd = torch.zeros(30)
    odd[3] = 1
    found = judge("regression", "spearman", Scores(truth.clone(), truth), Scores(odd, truth)).quality
    assert found.difference is None
    assert "undefined when rows are drawn again" in found.no_interval


def test_not_a_number_makes_no_figure():
    losses = torch.full((30,), 2.0, dtype=torch.float64)
    losses[0] = torch.nan
    counts = torch.ones(30, dtype=torch.float64)
    assert "undefined" in draw(row_sums.token_loss(*(Losses(0.0, rows=(losses, counts)) for _ in range(2))), 0)


def test_a_metric_without_rows_says_so(monkeypatch):
    monkeypatch.setitem(METRICS, "accuracy", METRICS["accuracy"].__class__(METRICS["accuracy"].computed))
    found = judge("text-classification", "accuracy", *classes_of([1] * 30, [1] * 30, [0] * 30)).quality
    assert found.difference is None
    assert "has no form by rows" in found.no_interval
    assert found.changed.lost == 30


# --- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_ten_thousand_rows_are_drawn_in_well_under_a_second(metric):
    pair = classes_of(_drawn(10_000, 3, 0), _drawn(10_000, 3, 1), _drawn(10_000, 3, 2), classes=3)
    judge("text-classification", metric, *pair)  # scipy is imported
    start = time.process_time()
    judge("text-classification", metric, *pair)
    assert time.process_time() - start < 0.5
