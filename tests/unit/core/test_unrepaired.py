"""What a report says of sublayers that were left unrepaired."""

import pytest
import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.masks import Mask
from pruning_core.evidence.calibration import Batch, TokenSet
from pruning_core.evidence.context import Evidence
from pruning_core.evidence.states import DenseStates
from pruning_core.methods.unit_plan import UnitPlan, left_whole
from pruning_core.report.report import LayerReport, Report, SublayerReport
from pruning_core.report.sublayers import reported_sublayers
from pruning_core.run.reporting import _unrepaired
from pruning_core.spec.prune import RecoverySpec
from tests import tiny
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


def _evidence(model):
    """About as many tokens as inputs: refits follow the noise of their own tokens, and lose on the held-out ones."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.arange(4) + 4 * place, None)
        for place, ids in enumerate(torch.randint(5, 60, (2, 4, 6), generator=generator))
    ]
    adapter = adapt(model)
    tokens = TokenSet(tuple(batches), 8, 48, 6.0, "")
    return Evidence(adapter, tokens, DenseStates(adapter, batches, 2**30), torch.float32)


def _layer_reports(sublayers, mask):
    """Reports of layers as the outcome of a checkpoint holds them."""
    first = Report.model_validate(REPORT).layers[0]
    counts, sizes = mask.counts(), [len(kept) for kept in mask.kept]
    return tuple(
        first.but(
            layer=place // 2,
            dense_heads=sizes[place],
            kept_heads=counts[place],
            dense_neurons=sizes[place + 1],
            kept_neurons=counts[place + 1],
            attention=sublayers[place],
            ffn=sublayers[place + 1],
        )
        for place in range(0, len(sizes), 2)
    )


@pytest.mark.parametrize("removed", [False, True], ids=["units of the FFNs", "units of both"])
def test_where_nothing_was_pruned_a_rejected_refit_is_no_failure(removed):
    """Refits of whole attentions are tries to make up for the FFNs before them: the report does not count them as lost."""
    model = tiny.build_model("bert")
    mask = Mask.full([group.size for group in adapt(model).groups])
    for place, kept in enumerate(mask.kept):
        if removed or place % 2 == 1:
            kept[: len(kept) // 2] = False
    applied = UnitPlan(mask).apply_(
        clone(model), _evidence(model), RecoverySpec(damping=1e-6, holdout=0.25), on_sublayer=lambda _done: None
    )
    attention = applied.sublayers[2]  # behind the FFN of the first layer, whose loss it is asked to make up for
    assert attention.status == ("rejected" if removed else "skipped")
    assert attention.residual_before == attention.residual_after > 1e-3
    layers = _layer_reports(applied.sublayers, mask)
    said = _unrepaired(Report.model_validate(REPORT).but(layers=layers))
    assert any(one.startswith("layer 2 attention: recovery rejected") for one in said) == removed
    assert len(said) == sum(report.status == "rejected" for report in applied.sublayers)
    assert any(own.status == "nothing to repair" for own in reported_sublayers(layers)) != removed


def test_a_whole_sublayer_that_stands_in_for_a_block_that_is_gone_can_fail():
    adapter = adapt(tiny.build_model("bert"))
    mask = Mask.full([group.size for group in adapter.groups])
    mask.kept[2][:], mask.kept[3][:] = False, False
    gone = SublayerReport(solver="none", status="skipped", iterations=0)
    found = left_whole((REJECTED, REJECTED, gone, gone), mask, adapter)
    assert [report.status for report in found] == ["skipped", "rejected", "skipped", "skipped"]


@pytest.mark.parametrize("status", ["breakdown", "non_finite"])
def test_a_solver_that_fails_is_told_of_wherever_it_fails(status):
    adapter = adapt(tiny.build_model("bert"))
    mask = Mask.full([group.size for group in adapter.groups])
    reports = (REJECTED.but(status=status), REPAIRED, REPAIRED, REPAIRED)
    assert left_whole(reports, mask, adapter) == reports
