"""What people are told of the halves of layers."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from pruning_core.arch.adapter import adapt
from pruning_core.methods.zeroing import sublayer_reports
from pruning_core.recovery.matrix_fit import Fit
from pruning_core.report.report import CrossReport, LayerReport, SolverStatus, SublayerReport
from pruning_core.report.sublayers import heads_of, is_failed, matrix_words, reported_sublayers, words_of
from tests import tiny


def repair(status="converged", before=0.2, after=0.1):
    return SublayerReport(solver="pcg", status=status, iterations=3, residual_before=before, residual_after=after)


def layer(index, attention=None, *, kept=4, cross=None):
    fields = {"dense_heads": 4, "kept_heads": kept, "head_indices": range(kept), "dense_neurons": 8, "kept_neurons": 8}
    return LayerReport(layer=index, attention=attention or repair(), ffn=repair(), cross=cross, **fields)


CROSS = CrossReport(dense_heads=4, kept_heads=1, head_indices=(2,), attention=repair())


def test_halves_of_a_decoder_are_named_as_such_and_its_cross_attention_is_one():
    layers = [layer(0, kept=2), layer(1, cross=CROSS)]
    names = [half.name for half in reported_sublayers(layers)]
    assert names == [
        *("encoder layer 1 attention", "encoder layer 1 FFN"),
        *("decoder layer 1 attention", "decoder layer 1 cross-attention", "decoder layer 1 FFN"),
    ]
    assert [half.name for half in reported_sublayers(layers[:1])] == ["layer 1 attention", "layer 1 FFN"]
    assert heads_of(layers) == (2 + 4 + 1, 12)


@pytest.mark.parametrize(
    ("report", "kept", "status", "failed"),
    [
        (repair("rejected", 0.0, 0.0), 4, "nothing to repair", False),
        (repair("rejected", 0.3, 0.4), 4, "rejected", True),
        (repair("rejected", 0.0, 0.0), 3, "rejected", True),
        (repair("skipped", 0.3, 0.3), 4, "nothing to repair", False),
        (repair("skipped", None, None), 4, "skipped", False),
        (repair("breakdown", 0.0, None), 4, "breakdown", True),
        (repair("max_iterations"), 3, "all steps taken", False),
        (repair("jittered"), 3, "singular, solved with a ridge", False),
        (repair("stagnated"), 3, "stagnated", False),
        (repair("non_finite", 0.2, 0.2), 3, "given NaN or infinity", True),
        (repair(), 3, "converged", False),
    ],
)
def test_only_what_has_lost_something_and_stayed_so_has_failed(report, kept, status, failed):
    first = next(reported_sublayers([layer(0, report, kept=kept)]))
    assert (first.status, first.failed) == (status, failed)


def test_every_status_has_words_and_is_a_failure_or_none():
    statuses = get_args(SolverStatus)
    assert all(words_of(status) and matrix_words(status) for status in statuses)
    assert {status for status in statuses if is_failed(status)} == {"breakdown", "non_finite"}


@pytest.mark.parametrize("status", get_args(SolverStatus))
def test_the_status_of_a_sublayer_is_the_worst_of_its_matrices(status):
    adapter = adapt(tiny.build_model("bert"))
    fit = Fit("m", "skipped", 0, 1, None, None, 0.5, 0.4)
    fits = [fit] * sum(1 + len(sublayer.parts) for sublayer in adapter.sublayers)
    fits[1] = replace(fit, status=status)
    first, *others = sublayer_reports(fits, adapter)
    assert first.status == status
    assert {report.status for report in others} == {"skipped"}
