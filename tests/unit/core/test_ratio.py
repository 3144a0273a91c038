"""How sure a speed-up is, and when measuring stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pruning_core.measure.latency import latency_report, measure_latency
from pruning_core.measure.ratio import CONFIDENCE, LEAST_TURNS, reason_to_stop, speedup_interval
from pruning_core.models.load import load_task_model
from pruning_core.report.latency_words import interval_of_speedup, speedup_words
from pruning_core.spec.latency import LatencySpec
from tests import tiny

DRAWS = 2000
DEFAULT = LatencySpec()


def noisy(rng, turns, spread, spikes=0.1):
    """Times in turns at a true ratio of 2: noise that both share, noise of each, and a busy machine's spikes."""
    shared = rng.lognormal(0, 0.1, turns)
    both = [shared * rng.lognormal(0, spread, turns) * np.where(rng.random(turns) < spikes, 1.5, 1) for _ in range(2)]
    return list(200 * both[0]), list(100 * both[1])


@pytest.mark.parametrize("turns", [6, 9, 12, 20])
def test_the_interval_holds_the_truth_as_often_as_it_says_whatever_the_noise(turns):
    rng, held, said = np.random.default_rng(turns), 0, 0.0
    for _ in range(DRAWS):
        found = speedup_interval(*noisy(rng, turns, 0.03))
        held, said = held + (found.low <= 2 <= found.high), found.confidence
    assert said >= CONFIDENCE
    assert held / DRAWS == pytest.approx(said, abs=0.015)


def test_stopping_early_costs_a_few_points_of_coverage_and_no_more():
    rng, held = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        times = noisy(rng, DEFAULT.repeats, 0.015, spikes=0.05)
        turns = next(n for n in range(1, DEFAULT.repeats + 1) if reason_to_stop(times[0][:n], times[1][:n], DEFAULT))
        found = speedup_interval(times[0][:turns], times[1][:turns])
        held += found.low <= 2 <= found.high
    assert held / DRAWS >= 0.9


@pytest.mark.parametrize(("turns", "confidence"), [(3, 0.75), (5, 0.9375), (6, 0.9688), (20, 0.9586)])
def test_few_turns_have_an_interval_of_all_of_them_and_of_less_confidence(turns, confidence):
    found = speedup_interval([2.0 + own for own in range(turns)], [1.0] * turns)
    assert found.confidence == pytest.approx(confidence, abs=1e-4)
    if turns <= LEAST_TURNS:
        assert (found.low, found.high) == (2.0, 1.0 + turns)


def stops_after(dense, pruned, spec):
    for turns in range(1, len(dense) + 1):
        reason = reason_to_stop(dense[:turns], pruned[:turns], spec)
        if reason is not None:
            return turns, reason
    return None


def test_a_quiet_machine_needs_six_turns_and_a_noisy_one_all():
    assert stops_after([500.0] * 20, [400.0] * 20, DEFAULT) == (LEAST_TURNS, "narrow")
    wild = [500.0, 700.0] * 10
    assert stops_after(wild, [400.0] * 20, DEFAULT) == (20, "repeats")


def test_a_short_measurement_goes_on_and_a_long_one_ends():
    assert stops_after([1.0] * 20, [1.0] * 20, DEFAULT) == (20, "repeats"), "20 ms are of one moment of the machine"
    assert stops_after([9000.0, 14000.0] * 10, [5000.0] * 20, DEFAULT) == (LEAST_TURNS, "seconds")


@pytest.mark.parametrize("spec", [LatencySpec(repeats=19), LatencySpec(repeats=40), LatencySpec(within=0)])
def test_repeats_that_the_user_names_are_measured_in_full(spec):
    assert stops_after([30_000.0] * 40, [30_000.0] * 40, spec) == (spec.repeats, "repeats")


def test_a_width_can_be_asked_for_with_any_number_of_repeats():
    assert stops_after([500.0] * 99, [400.0] * 99, LatencySpec(repeats=99, within=0.01)) == (LEAST_TURNS, "narrow")
    with pytest.raises(ValidationError, match="within"):
        LatencySpec(within=-0.1)


def test_a_spec_that_says_nothing_is_written_as_it_was():
    assert LatencySpec().model_dump(mode="json") == {"batch": 8, "length": 128, "threads": 1, "repeats": 20}
    assert LatencySpec.model_validate_json(LatencySpec().model_dump_json()).narrow == LatencySpec().narrow == 0.02
    again = LatencySpec.model_validate_json(LatencySpec(repeats=30).model_dump_json())
    assert (again.narrow, again.usual_repeats) == (0, 30)


def test_one_of_several_checkpoints_gets_half_of_a_bound_and_a_quarter_of_a_number():
    assert (DEFAULT.for_frontier().repeats, DEFAULT.for_frontier().narrow) == (10, 0.02)
    assert (LatencySpec(repeats=40).for_frontier().repeats, LatencySpec(repeats=40).for_frontier().narrow) == (10, 0)


def test_real_models_are_measured_until_it_is_narrow_and_the_report_says_how_wide(tmp_path):
    model = load_task_model(tiny.write_model(tmp_path, "bert"), "text-classification", torch.device("cpu"))
    told = []
    spec = LatencySpec(batch=64, length=64, within=0.5)
    report = measure_latency(model, model, spec, torch.Generator().manual_seed(0), told.append)
    assert report.interval.low <= report.interval.high
    assert report.repeats == told[-1] <= spec.repeats
    assert report.stopped == ("narrow" if report.repeats < spec.repeats else "repeats")
    assert f"{report.repeats} turns" in speedup_words(report)


def test_the_reported_speed_up_lies_in_its_interval():
    dense, pruned = [10.0, 11.0, 12.0, 50.0, 60.0, 70.0, 80.0], [9.0, 10.0, 11.0, 12.0, 15.0, 16.0, 71.0]
    found = latency_report(dense, pruned, LatencySpec(), threads=1, device="cpu")
    assert found.interval.low <= found.speedup <= found.interval.high
    shifted = latency_report([1.0, 2.0, 9.0], [1.0, 8.0, 1.0], LatencySpec(repeats=3), threads=1, device="cpu")
    assert shifted.interval.low <= shifted.speedup <= shifted.interval.high
    drawn = np.random.default_rng(0)
    for _ in range(200):
        report = latency_report(*noisy(drawn, 17, 0.3, spikes=0.4), LatencySpec(), threads=1, device="cpu")
        assert report.interval.low <= report.speedup <= report.interval.high


def test_reports_without_an_interval_have_nothing_to_say_of_it():
    report = latency_report([2.0] * 6, [1.0] * 6, LatencySpec(), threads=1, device="cpu", stopped="seconds")
    assert speedup_words(report) == "2.00x as fast, between 2.00 and 2.00 (97 %, 6 turns; a minute was up)"
    assert interval_of_speedup(report.but(interval=None)) == ""
    assert speedup_words(report.but(interval=None)) == "2.00x as fast"
