"""What a report says of sublayers that were left unrepaired."""

import pytest

from pruning_core.report.report import LayerReport, Report, SublayerReport
from pruning_core.run.reporting import _unrepaired
from tests.unit.app.sample import REPORT

REJECTED = SublayerReport(solver="cg", status="rejected", iterations=3, residual_before=0.5, residual_after=0.5)
REPAIRED = SublayerReport(solver="cg", status="converged", iterations=3, residual_before=0.5, residual_after=0.1)
BROKEN = SublayerReport(solver="cg", status="breakdown", iterations=0, residual_before=0.5, residual_after=0.5)


def _layers(rejected: int) -> tuple[LayerReport, ...]:
    layer = Report.model_validate(REPORT).layers[0]
    return tuple(
        layer.but(layer=place, attention=REJECTED if place < rejected else REPAIRED, ffn=BROKEN if place == 0 else REPAIRED)
        for place in range(12)
    )


@pytest.mark.parametrize("rejected", [0, 3])
def test_few_are_named(rejected):
    said = _unrepaired(Report.model_validate(REPORT).but(layers=_layers(rejected)))
    named = {f"layer {place + 1} attention: recovery rejected, weights left unrepaired" for place in range(rejected)}
    assert set(said) == named | {"layer 1 FFN: recovery breakdown, weights left unrepaired"}


def test_many_are_counted():
    (said,) = _unrepaired(Report.model_validate(REPORT).but(layers=_layers(9)))
    assert said.startswith("recovery left the weights of 10 of 24 sublayers unrepaired (1 breakdown, 9 rejected)")
