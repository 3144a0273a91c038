"""Rows of engines in words: what agreed, of how much, and how far speeds are to be believed."""

from __future__ import annotations

import pytest

from pruning_core.artifacts.card import model_card
from pruning_core.artifacts.engines.judging import speed_of
from pruning_core.artifacts.page import render_page
from pruning_core.report.engine_words import conditions, engine_words
from pruning_core.report.engines import EngineReport
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec
from tests.unit.app.sample import REPORT

_TEXTS = {
    "engine": "vllm",
    "status": "ok",
    "texts": 20,
    "tokens": 987,
    "decided": 820,
    "agreement": 1.0,
    "max_difference": 1.5e-7,
    "continuations": 2,
    "same_continuations": 2,
    "new_tokens": 32,
    "generated": "a text",
}
_PASSES = {"engine": "onnxruntime", "status": "ok", "texts": 5, "tokens": 16, "decided": 16, "agreement": 1.0}
_EARLIER = {"continuations": 0, "same_continuations": 0, "new_tokens": 0}
_SPEEDS = {
    "dense": {"prefill_tokens_s": 50.0, "decode_tokens_s": 10.0, "prefill_spread": 0.04, "decode_spread": 0.31},
    "pruned": {"prefill_tokens_s": 60.0, "decode_tokens_s": 15.0, "prefill_spread": 0.08, "decode_spread": 0.02},
}


def _words(row):
    return engine_words([EngineReport.model_validate(row)])[0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            _TEXTS,
            "all 820 decided of 987 tokens; 2 continuations of 32 tokens are the same; largest difference 1.5e-07",
        ),
        (
            _TEXTS | {"same_continuations": 1, "max_difference": None},
            "all 820 decided of 987 tokens; 1 of 2 continuations of 32 tokens is the same (the rest parts where undecided)",
        ),
        (
            _TEXTS | {"status": "failed", "reason": "it differs", "agreement": 815 / 820, "same_continuations": 0},
            "815 of 820 decided of 987 tokens; 0 of 2 continuations of 32 tokens are the same; largest difference 1.5e-07",
        ),
        (_TEXTS | _EARLIER, "all 820 decided of 987 tokens; largest difference 1.5e-07"),
        (_TEXTS | _EARLIER | {"agreement": None, "decided": 0, "max_difference": None}, "none decided of 987 tokens"),
        (_PASSES, "all 16 decided of 16 answers"),
        ({"engine": "mlx", "status": "missing", "reason": "there is no environment"}, ""),
    ],
)
def test_agreement_says_of_how_much(row, said):
    assert _words(row).agreement == said


def test_speeds_say_their_spread_and_type():
    row = _TEXTS | _SPEEDS | {"notes": ["computed in float32", "loaded F16"]}
    assert _words(row).speed == (
        "prefill 50.0 to 60.0 tokens/s, 1.20x (turns differ by 8%), decode 10.0 to 15.0 tokens/s, 1.50x (turns differ by 31%), "
        "in float32"
    )
    assert _words(_PASSES | {"dense": {"pass_ms": 9.0}, "pruned": {"pass_ms": 6.0}}).speed == "9.0 to 6.0 ms, 1.50x"


def test_the_spread_is_that_of_the_turns():
    turns = [{"prefill_s": one, "decode_s": 2.0} for one in (1.0, 1.25, 1.5)]
    speed = speed_of(turns, 100, 10)
    assert (speed.prefill_spread, speed.decode_spread) == (pytest.approx(0.4), 0)
    assert speed_of([{"pass_s": 1.0}, {"pass_s": 3.0}], 0, 0).pass_spread == pytest.approx(1)
    assert speed_of(turns[:1], 100, 10).prefill_spread is None


def test_card_and_page_say_under_which_conditions_speeds_hold():
    report = Report.model_validate(REPORT | {"engines": [_TEXTS | _SPEEDS]})
    spec = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
    for text in (model_card(spec, report), render_page(spec, report)):
        for said in ("on the CPU with 1 thread", "batch 1", "without compilation (eager)", "noisy", "is decided where"):
            assert said in text


def test_what_was_not_measured_has_no_conditions():
    missing = {"engine": "mlx", "status": "missing", "reason": "there is no environment"}
    assert conditions(Report.model_validate(REPORT | {"engines": [missing]})) == ""
    passes = _PASSES | {"pruned": {"pass_ms": 6.0}}
    said = conditions(Report.model_validate(REPORT | {"engines": [passes]}))
    assert "batch 1" not in said
    assert "eager" not in said
