"""Differences, intervals and floors in words."""

import pytest

from pruning_core.report.quality import ChangedReport, DifferenceReport, FloorReport, IntervalReport, QualityReport
from pruning_core.report.quality_words import difference_words, floor_words, interval_words


def _quality(metric="accuracy", *, value=-0.004, low=-0.011, high=0.003, p=0.29, changed=(22, 8, 14), lower=False, of="row"):
    return QualityReport(
        metric=metric,
        dense=0.9,
        pruned=0.9 + value,
        samples=872,
        lower_is_better=lower,
        difference=DifferenceReport(value=value, low=low, high=high, confidence=0.95, p_value=p, test="mcnemar"),
        changed=None if changed is None else ChangedReport(answers=changed[0], gained=changed[1], lost=changed[2], of=of),
    )


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        (
            _quality(),
            (
                "0.4 points lower, between 1.1 lower and 0.3 higher (95 %); 22 answers changed, 6 net lost; "
                "could be chance (p = 0.29)"
            ),
        ),
        (
            _quality(value=0.02, low=0.01, high=0.03, p=0.0004, changed=(1, 1, 0)),
            (
                "2.0 points higher, between 1.0 higher and 3.0 higher (95 %); 1 answer changed, 1 net gained; "
                "hardly chance (p < 0.001)"
            ),
        ),
        (
            _quality(value=0.0, low=-0.002, high=0.002, p=1.0, changed=(0, 0, 0)),
            "no difference, between 0.2 lower and 0.2 higher (95 %); no answer changed; could be chance (p = 1.00)",
        ),
        (
            _quality("perplexity", value=0.31, low=0.2, high=0.42, p=0.012, changed=(9, 4, 4), lower=True, of="token"),
            (
                "0.310 higher (worse), between 0.200 higher and 0.420 higher (95 %); 9 tokens' answers changed, as many "
                "gained as lost; hardly chance (p = 0.012)"
            ),
        ),
        (
            _quality("bleu", value=-1.25, low=-2.5, high=0.0, p=0.06, changed=None),
            "1.250 lower, between 2.500 lower and 0.000 (95 %); could be chance (p = 0.060)",
        ),
        (
            _quality(value=-0.0138, low=-0.0268, high=-0.0007, p=0.0501, changed=(32, 10, 22)),
            (
                "1.4 points lower, between 2.7 lower and 0.1 lower (95 %); 32 answers changed, 12 net lost; "
                "at the edge of chance (p = 0.050)"
            ),
        ),
    ],
)
def test_differences_in_words(quality, words):
    assert difference_words(quality) == words


def test_words_of_earlier_reports_are_none():
    earlier = QualityReport(metric="accuracy", dense=0.9, pruned=0.8, samples=10)
    assert difference_words(earlier) == interval_words(earlier.interval_pruned) == floor_words(None) == ""
    assert earlier.worse is None
    assert interval_words(IntervalReport(low=0.5, high=0.75, confidence=0.95, method="wilson")) == "0.5000 to 0.7500"


def test_worse_has_one_direction():
    assert _quality().worse == pytest.approx((-0.003, 0.011))
    assert _quality("loss", value=0.2, low=0.1, high=0.3, lower=True).worse == pytest.approx((0.1, 0.3))


def test_words_of_floors():
    base = {"kind": "relative", "requested": 0.99, "required": 0.89, "achieved": 0.9}
    assert floor_words(FloorReport(**base)) == ""
    assert floor_words(FloorReport(**base, confidence=0.95, bound=0.88, selected_on=436)) == (
        "judged by the lower end of its 95 % interval, 0.8800; chosen on 436 other rows"
    )
