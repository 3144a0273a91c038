"""A sixth method and a sixth metric, added here alone: a folder and one registry line of a method, two rows of a metric.

Each goes the whole way, from the request to the proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pruning_core.arch.adapter import adapt
from pruning_core.arch.masks import Mask
from pruning_core.budgets import RULES, Rule
from pruning_core.checks.prediction import predict
from pruning_core.checks.request import check_local_inputs
from pruning_core.measure.outcome import ZeroCount
from pruning_core.methods.base import Applied
from pruning_core.methods.unit_removal import Scores, UnitPlanner
from pruning_core.report.report import PatternReport, SublayerReport
from pruning_core.run.pipeline import run
from pruning_core.search.mask import search_mask
from pruning_core.spec.method import METHODS, FisherCG
from pruning_core.spec.options import MethodOptions
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import TARGET_METRICS, KeepTarget, SparsityTarget, TargetMetric
from pruning_core.spec.training import TrainingOptions
from tests import tiny

pytestmark = pytest.mark.usefixtures("proven_by_a_fork")

# --- a method that removes units ---------------------------------------------------------------------------------------


class LastUnits(MethodOptions):
    """Keeps the last units of every sublayer."""

    planner: ClassVar[str] = "tests.contract.test_added_method:prepare_last_units"

    name: Literal["last-units"] = "last-units"


class ByPosition:
    def prepare(self, ctx):
        return Scores([torch.arange(1.0, 1 + group.size) for group in ctx.groups])

    def plan(self, scores, budget, ctx):
        with ctx.clock.stage("search"):
            return search_mask(scores.importance, ctx.groups, budget, ctx.layers)


def prepare_last_units(spec, ctx, cache):
    method = ByPosition()
    return UnitPlanner(spec, ctx, method, method.prepare(ctx), cache)


# --- a method that sets weights to zero --------------------------------------------------------------------------------


class OddInputs(MethodOptions):
    """Sets the weights of every other input to zero."""

    planner: ClassVar[str] = "tests.contract.test_added_method:prepare_odd_inputs"
    selection: ClassVar[str] = "magnitude"
    iterations: ClassVar[int] = 0
    steps: ClassVar[int] = 0
    damping: ClassVar[float] = 0.0
    obs_group: ClassVar[None] = None
    training: ClassVar[TrainingOptions] = TrainingOptions()

    name: Literal["odd-inputs"] = "odd-inputs"
    tier: Literal["one-shot"] = "one-shot"

    @property
    def zeroing(self) -> Any:
        return self

    @property
    def title(self) -> str:
        return "every other input"

    @classmethod
    def complete(cls, given: dict[str, Any], fields: object) -> dict[str, Any]:
        return {**given, "artifacts": {"layout": "stock", "formats": ("safetensors", "compressed")}}


@dataclass(frozen=True)
class OddPlan:
    zeroes_weights: bool = True
    training: None = None

    def apply_(self, student, evidence, recovery, *, on_sublayer):
        adapter = adapt(student)
        for linear in adapter.linears.values():
            linear.weight = torch.nn.Parameter(linear.weight.detach().clone(), requires_grad=False)
            linear.weight[:, 1::2] = 0
        on_sublayer(len(adapter.sublayers))
        nothing = SublayerReport(solver="none", status="skipped", iterations=0)
        return Applied(Mask.full([group.size for group in adapter.groups]), (nothing,) * len(adapter.sublayers))

    def finish_(self, student, applied, layout):
        return applied

    def recount(self, written):
        weights = load_file(written.folder / "model.safetensors")
        counts = [weights[f"{name}.weight"] for name in written.dense.linears]
        total, zeros = sum(own.numel() for own in counts), sum(int((own == 0).sum()) for own in counts)
        report = PatternReport(
            pattern="every other input",
            selection="none",
            blocks=len(counts),
            violations=0,
            zeros=zeros,
            prunable_weights=total,
            nonzero_macs=total - zeros,
            matrices=(),
            products=written.products,
        )
        return ZeroCount(zeros / total, None, report)

    def zero_blocks(self, names: Sequence[str]) -> Mapping[str, None]:
        return dict.fromkeys(names)

    def hints(self, outcome):
        return [f"every other input is gone, {outcome.pattern.zeros} weights in all"]


class OddPlanner:
    def plans(self, target):
        yield OddPlan()


def prepare_odd_inputs(spec, ctx, cache):
    return OddPlanner()


# --- a metric of targets -----------------------------------------------------------------------------------------------


class HeadsTarget(KeepTarget):
    """Keep at most this share of the heads."""

    metric: Literal["heads"]


def price_of_heads(group, _length):
    return 1.0 if group.kind == "head" else 0.0


@pytest.fixture
def registered(monkeypatch):
    """The registry lines: one for each method, two for the metric."""
    monkeypatch.setitem(METHODS, "last-units", LastUnits)
    monkeypatch.setitem(METHODS, "odd-inputs", OddInputs)
    row = TargetMetric("Heads: share to keep", "Asked to keep at most {} of the heads", "stayed", "of the heads")
    monkeypatch.setitem(TARGET_METRICS, "heads", row)
    monkeypatch.setitem(RULES, "heads", Rule(lambda found: found.kept_share(price_of_heads), price_of_heads))


class Spec(PruneSpec):
    """A spec of a Coppice that has both methods and the metric."""

    method: LastUnits | OddInputs | FisherCG = FisherCG()
    target: HeadsTarget | SparsityTarget | KeepTarget | None = None


def spec_of(model, data, **fields):
    return Spec.model_validate(tiny.tiny_spec(model, data).model_dump(mode="json", exclude={"target", "method"}) | fields)


@pytest.mark.long
def test_a_method_that_removes_units_needs_its_own_folder_and_one_line(registered, tiny_bert, tiny_sst2, tmp_path):
    spec = spec_of(tiny_bert, tiny_sst2, method={"name": "last-units"}, target=KeepTarget(metric="macs", keep=0.5))
    check_local_inputs(spec)
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.method == "last-units"
    assert report.acceptance is not None
    assert report.target.met
    for layer in report.layers:
        assert layer.head_indices == tuple(range(layer.dense_heads - layer.kept_heads, layer.dense_heads))


@pytest.mark.long
def test_a_method_that_sets_zeros_needs_its_own_folder_and_one_line(registered, tiny_bert, tiny_sst2, tmp_path):
    target = {"metric": "sparsity", "sparsity": 0.5}
    spec = spec_of(tiny_bert, tiny_sst2, method={"name": "odd-inputs"}, target=target)
    check_local_inputs(spec)
    assert predict(spec) is not None
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.sparsity.achieved == report.target.achieved == 0.5
    assert report.compressed.status == "ok", report.compressed.reason
    assert f"every other input is gone, {report.pattern.zeros} weights in all" in report.warnings
    page = (tmp_path / "out" / "report.html").read_text()
    assert "every other input" in page


@pytest.mark.long
def test_a_metric_of_targets_needs_two_rows(registered, tiny_bert, tiny_sst2, tmp_path):
    spec = spec_of(tiny_bert, tiny_sst2, target=HeadsTarget(metric="heads", keep=0.5))
    check_local_inputs(spec)
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.target.metric == "heads"
    assert report.target.achieved == 0.5
    assert sum(layer.kept_heads for layer in report.layers) * 2 == sum(layer.dense_heads for layer in report.layers)
    assert "Asked to keep at most 50% of the heads; 50.00% stayed." in (tmp_path / "out" / "report.html").read_text()


def test_without_their_lines_neither_is_known(tiny_bert, tiny_sst2):
    with pytest.raises(ValidationError, match="unknown method; known methods are fisher-cg"):
        tiny.tiny_spec(tiny_bert, tiny_sst2, method="last-units")
    with pytest.raises(ValidationError, match="metric"):
        tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "heads", "keep": 0.5})
