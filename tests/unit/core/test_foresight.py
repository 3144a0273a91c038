"""What other budgets would bring: masks that are counted as they would be built, and divergences put to scale by what was."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruning_core.report.foresight import Built, Foresight, divergence_of
from pruning_core.report.outlook import OutlookPoint, OutlookReport
from pruning_core.report.quality import QualityReport
from pruning_core.run.pipeline import run
from tests import tiny

OUTLOOK = OutlookReport(
    points=tuple(
        OutlookPoint(keep=share / 10, parameters=1000 + 100 * share, bytes=4 * (1000 + 100 * share), cost=(1 - share / 10) ** 2)
        for share in (9, 7, 5, 3)
    )
)


def _foresight(*built: Built, least: float = 0.001) -> Foresight:
    return Foresight(OUTLOOK, built, parameters=2000, size=8000, least=least)


def test_sizes_lie_between_the_budgets_beside_them_and_the_dense_model_is_at_one():
    seen = _foresight()
    assert (seen.at(1.0).parameters, seen.at(1.0).bytes) == (2000, 8000)
    assert seen.at(0.6).parameters == 1600
    assert seen.at(0.6).divergence is None
    assert seen.at(0.6).speedup is None
    assert seen.covers(0.3)
    assert not seen.covers(0.29)


def test_one_checkpoint_gives_the_scale():
    seen = _foresight(Built(0.5, 2.0, 0.05))
    assert seen.at(0.5).divergence == pytest.approx(0.05)
    assert seen.at(0.3).divergence == pytest.approx(0.05 * 0.49 / 0.25)
    assert seen.at(0.5).speedup == pytest.approx(2.0)
    assert seen.at(1.0).divergence == 0
    assert seen.at(1.0).speedup == 1


@pytest.mark.parametrize(("power", "expected"), [(1.5, 1.5), (0.2, 0.5), (4.0, 2.0)])
def test_several_give_a_power_of_the_cost_within_bounds(power: float, expected: float):
    costs = {keep: (1 - keep) ** 2 for keep in (0.9, 0.7, 0.5, 0.3)}
    seen = _foresight(*(Built(keep, 1 / keep, 0.1 * cost**power) for keep, cost in costs.items()), least=0.0)
    found = [seen.at(keep).divergence for keep in (0.9, 0.3)]
    assert found[1] / found[0] == pytest.approx((costs[0.3] / costs[0.9]) ** expected, rel=1e-6)


def test_a_divergence_below_what_the_rows_can_tell_counts_as_that():
    seen = _foresight(Built(0.9, 1.1, 0.0), least=0.002)
    assert seen.at(0.9).divergence == pytest.approx(0.002)


def test_what_was_built_beyond_the_smallest_budget_does_not_mislead():
    assert _foresight(Built(0.1, 8.0, 0.9)).at(0.5).divergence is None


def test_a_slower_checkpoint_foretells_no_speed():
    assert _foresight(Built(0.5, 0.8, None)).at(0.4).speedup == 1


QUALITY = QualityReport(metric="accuracy", dense=0.9, pruned=0.8, samples=100)


@pytest.mark.parametrize(
    ("quality", "value"),
    [
        (QUALITY.but(details={"agreement_with_dense": 0.97}), 0.03),
        (QUALITY.but(metric="spearman", details={"pearson_with_dense": 0.9}), 0.1),
        (QUALITY.but(metric="perplexity", dense=10.0, pruned=20.0, lower_is_better=True), 0.6931),
        (QUALITY.but(metric="cosine", dense=1.0, pruned=0.95, details={"nearest_neighbour_agreement": 0.5}), 0.05),
        (QUALITY, None),
    ],
    ids=["answers", "scores", "perplexity", "embeddings", "none"],
)
def test_the_divergence_of_a_task(quality: QualityReport, value: float | None):
    found = divergence_of(quality)
    assert (found and round(found.value, 4)) == value


def test_a_budget_that_is_built_has_the_size_that_was_predicted(
    tiny_bert: Path, tiny_sst2: Path, tmp_path: Path, proven_by_a_fork: None
) -> None:
    del proven_by_a_fork
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2)
    first = run(spec, tmp_path / "first", device="cpu")
    assert first.outlook is not None
    costs = [own.cost for own in first.outlook.points]
    assert costs == sorted(costs)
    chosen = min(first.outlook.points, key=lambda own: abs(own.keep - 0.75))
    other = spec.but(target={"metric": "macs", "keep": min(0.99, chosen.keep + 1e-6)})
    built = run(other, tmp_path / "other", device="cpu")
    assert built.macs.pruned / built.macs.dense == pytest.approx(chosen.keep, abs=0.02)
    assert built.parameters.pruned == chosen.parameters
    assert built.bytes.pruned == pytest.approx(chosen.bytes, rel=0.05)


def test_where_trials_or_zeros_decide_there_is_no_outlook(
    tiny_bert: Path, tiny_sst2: Path, tmp_path: Path, proven_by_a_fork: None
) -> None:
    del proven_by_a_fork
    stock = tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts={"layout": "stock"})
    zeros = tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "sparsity", "sparsity": 0.5}, method="block-lasso")
    for place, spec in enumerate((stock, zeros)):
        assert run(spec, tmp_path / str(place), device="cpu").outlook is None
