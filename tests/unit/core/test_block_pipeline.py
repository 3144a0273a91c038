"""``block-lasso`` through the whole pipeline on tiny models: segments go whole, dead units go physically, and it composes."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pruning_core.arch.structure import groups_of
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import TargetUnreachable
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.report.sublayers import heads_of
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from tests import tasks, tiny
from tests.families import ARCHITECTURES

LINEARS = 2 * 6


def spec_of(model, data, sparsity=0.5, **changes):
    method = {"name": "block-lasso", "block": "8x8"} | changes.pop("method", {})
    target = {"metric": "sparsity", "sparsity": sparsity}
    return tiny.tiny_spec(model, data, method=method, **({"target": target} | changes))


def prune(model, data, out, sparsity=0.5, **changes):
    return run(spec_of(model, data, sparsity, **changes), out, device="cpu")


@pytest.fixture(scope="module")
def halved(tiny_bert, tiny_sst2, tmp_path_factory):
    """A finished bundle in the stock layout, half of its weights zero, and its report."""
    out = tmp_path_factory.mktemp("blocks") / "out"
    return out, prune(tiny_bert, tiny_sst2, out, artifacts={"layout": "stock"})


def matrices(folder, report):
    weights = load_file(folder / "model.safetensors")
    return {matrix.name: weights[f"{matrix.name}.weight"] for matrix in report.pattern.matrices}


@pytest.mark.long
def test_segments_are_zero_as_a_whole_and_the_zeros_are_those_of_the_files(halved):
    out, report = halved
    written = matrices(out, report)
    assert len(written) == LINEARS
    zeros = sum(int((weight == 0).sum()) for weight in written.values())
    total = sum(weight.numel() for weight in written.values())
    assert report.sparsity.achieved == pytest.approx(zeros / total)
    assert 0.5 <= zeros / total < 0.503
    for weight in written.values():
        held = (weight.unflatten(1, (-1, 8)) != 0).sum(-1)
        assert set(held.unique().tolist()) <= {0, 8}
    held = sum(int((weight.unflatten(1, (-1, 8)) != 0).any(-1).sum()) for weight in written.values())
    assert report.pattern.segments.kept == held
    assert report.pattern.blocks == total // 8
    norms = report.pattern.segments.norms
    assert sum(norms.counts) == held
    assert norms.zero == total // 8 - held


@pytest.mark.long
def test_the_threshold_is_one_for_all_matrices_and_may_be_one_for_each(halved, tiny_bert, tiny_sst2, tmp_path):
    uniform = prune(tiny_bert, tiny_sst2, tmp_path / "out", method={"threshold": "uniform"}, artifacts={"layout": "stock"})
    shares = {round(m.nonzeros / m.weights, 2) for m in uniform.pattern.matrices}
    assert shares == {0.5}
    assert len({round(m.nonzeros / m.weights, 2) for m in halved[1].pattern.matrices}) > 3


def test_the_stock_layout_loads_with_nothing_of_ours(halved):
    out, report = halved
    assert report.acceptance.loader == "stock"
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert report.pattern.segments.removed_neurons == 0
    assert {layer.ffn.solver for layer in report.layers} == {"cg"}, "the refit runs without a preconditioner"


@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(own, marks=pytest.mark.matrix) for own in tiny.FAMILIES if own != "bert")]
)
@pytest.mark.long
def test_dead_units_are_removed_from_every_family(family, tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", family)
    report = prune(model, tiny_sst2, tmp_path / "out", 0.8)
    removed = {"head": 0, "neuron": 0}
    for before, after in zip(groups_of(read_checkpoint(model)), groups_of(read_checkpoint(tmp_path / "out")), strict=True):
        removed[before.kind] += before.size - after.size
    segments = report.pattern.segments
    assert (segments.removed_heads, segments.removed_neurons) == (removed["head"], removed["neuron"])
    assert removed["neuron"] > 0
    assert report.parameters.pruned < report.parameters.dense
    assert report.macs.pruned < report.macs.dense
    assert 0.8 <= report.sparsity.achieved <= 0.81
    written = matrices(tmp_path / "out", report)
    left = sum(int(weight.count_nonzero()) for weight in written.values())
    assert left == report.pattern.prunable_weights - report.pattern.zeros
    assert report.acceptance.max_difference <= report.acceptance.tolerance
    assert any("removed physically" in warning for warning in report.warnings)


@pytest.mark.long
def test_removed_units_of_an_encoder_decoder_are_counted_by_kind_cross_attention_among_them(tmp_path):
    ARCHITECTURES["t5"].write_for("summarization", tmp_path / "model")
    tasks.write_task_data(tmp_path / "data", "summarization")
    task = tasks.task_of("summarization", tmp_path / "data")
    report = prune(tmp_path / "model", tmp_path / "data", tmp_path / "out", 0.85, task=task)
    kept, dense = heads_of(report.layers)
    segments = report.pattern.segments
    assert segments.removed_heads == dense - kept > 0
    assert segments.removed_neurons == sum(layer.dense_neurons - layer.kept_neurons for layer in report.layers) > 0
    assert any(layer.cross is not None and layer.cross.kept_heads < layer.cross.dense_heads for layer in report.layers)


def test_columns_and_blocks_that_do_not_divide_leave_smaller_segments_at_the_edge(tiny_bert, tiny_sst2, tmp_path):
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", 0.6, method={"block": "12x5", "segment": "column"})
    segments = report.pattern.segments
    assert (segments.segment, segments.lengths) == ("column", (12,))
    assert segments.smaller == 2 * (4 * 32 + 32 + 64)  # one at the edge of the outputs for every input
    assert any("blocks do not divide every matrix" in warning for warning in report.warnings)
    assert 0.6 <= report.sparsity.achieved <= 0.61


def test_a_threshold_that_would_empty_a_matrix_leaves_a_segment_and_says_so(tiny_bert, tiny_sst2, tmp_path):
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", 0.97, artifacts={"layout": "stock"})
    assert report.pattern.segments.emptied
    assert all(matrix.nonzeros >= 8 for matrix in report.pattern.matrices)
    assert any("which the threshold would have emptied" in warning for warning in report.warnings)


@pytest.mark.long
def test_several_sparsities_share_one_scoring_pass(tiny_bert, tiny_sst2, tmp_path):
    targets = [{"metric": "sparsity", "sparsity": sparsity} for sparsity in (0.5, 0.8)]
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", target=None, targets=targets, artifacts={"layout": "stock"})
    assert [round(point.sparsity.achieved, 2) for point in report.frontier] == [0.5, 0.8]


def test_magnitude_without_refit_keeps_the_dense_weights_of_the_largest_segments(tiny_bert, tiny_sst2, tmp_path):
    report = prune(
        tiny_bert,
        tiny_sst2,
        tmp_path / "out",
        method={"selection": "magnitude"},
        recovery={"kind": "none"},
        artifacts={"layout": "stock"},
    )
    dense, norms = load_file(tiny_bert / "model.safetensors"), []
    for name, weight in matrices(tmp_path / "out", report).items():
        kept = weight != 0
        assert torch.equal(weight[kept], dense[f"{name}.weight"][kept])
        squares = dense[f"{name}.weight"].square().unflatten(1, (-1, 8)).sum(-1)
        norms.append((squares, kept.unflatten(1, (-1, 8)).any(-1)))
    least = min(float(squares[kept].min()) for squares, kept in norms)
    assert least >= max(float(squares[~kept].max()) for squares, kept in norms if not kept.all())


@pytest.mark.long
def test_it_composes_with_fisher_cg_whose_layers_have_widths_of_their_own(tiny_bert, tiny_sst2, tmp_path):
    parent = run(
        tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "macs", "keep": 0.5}), tmp_path / "parent", device="cpu"
    )
    report = prune(tmp_path / "parent", tiny_sst2, tmp_path / "out", 0.5)
    assert report.parameters.dense == parent.parameters.pruned
    assert report.pattern.prunable_weights < 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert 0.5 <= report.sparsity.achieved <= 0.51
    assert report.acceptance.max_difference <= report.acceptance.tolerance


def test_the_same_spec_gives_the_same_bytes(halved, tiny_bert, tiny_sst2, tmp_path):
    prune(tiny_bert, tiny_sst2, tmp_path / "again", artifacts={"layout": "stock"})
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (halved[0] / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": {"name": "block-lasso", "block": "64"}}, "must be PxQ such as 64x64"),
        ({"method": {"name": "block-lasso", "block": "64x1"}}, "row segments of 64x1 are single weights"),
        ({"method": {"name": "block-lasso", "block": "1x64", "segment": "column"}}, "are single weights"),
        ({"target": {"metric": "macs", "keep": 0.5}}, "only a sparsity can be asked for"),
        ({"target": {"metric": "pattern", "sparsity": 0.5}}, "only a sparsity can be asked for"),
        ({"recovery": {"kind": "masks"}}, "recovery.kind must be weights or none"),
        ({"target": None, "quality_floor": 0.9}, "needs a sparsity"),
    ],
)
def test_specs_that_do_not_fit_are_refused_at_once(changes, says):
    fields = {
        "model": "org/name",
        "task": "glue/sst2",
        "method": "block-lasso",
        "target": {"metric": "sparsity", "sparsity": 0.5},
    }
    with pytest.raises(ValidationError) as caught:
        PruneSpec.model_validate(fields | changes)
    assert any(says in error["msg"] for error in caught.value.errors()), caught.value.errors()


def test_blocks_larger_than_a_matrix_are_refused_at_submit(tiny_bert, tiny_sst2):
    with pytest.raises(TargetUnreachable, match=r"blocks of 64x64 are larger than attention\.self\.query of layer 0") as caught:
        check_local_inputs(spec_of(tiny_bert, tiny_sst2, method={"block": "64x64"}))
    assert caught.value.param == "method.block"


@pytest.mark.parametrize("start", ["one-shot", "dense"])
@pytest.mark.long
def test_the_trained_tier_meets_the_target_and_tells_of_its_penalty(start, tiny_bert, tiny_sst2, tmp_path):
    method = {"tier": "trained", "training": {"start": start, "epochs": 2, "batch_size": 16}}
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", 0.6, method=method)
    assert 0.6 <= report.sparsity.achieved <= 0.61
    assert report.training is not None
    assert report.training.epochs == 2
    measured = {name for point in report.training.points for name in point.measures}
    assert ({"zero_groups", "reweighted"} <= measured) == (start == "dense")
    assert report.acceptance.max_difference <= report.acceptance.tolerance


@pytest.mark.long
def test_the_lasso_decides_how_many_weights_of_each_matrix_stay_and_admm_which(tiny_bert, tiny_sst2, tmp_path):
    def chosen(chooses: str) -> dict[str, tuple[int, int]]:
        training = {"start": "dense", "epochs": 1, "batch_size": 16, "lasso": 1, "chooses": chooses}
        method = {"tier": "trained", "training": training}
        report = prune(tiny_bert, tiny_sst2, tmp_path / chooses, 0.6, method=method, artifacts={"layout": "stock"})
        return {own.name: (own.nonzeros, own.iterations) for own in report.pattern.matrices}

    shares, segments = chosen("shares"), chosen("segments")
    assert {name: kept for name, (kept, _) in shares.items()} == {name: kept for name, (kept, _) in segments.items()}
    assert len({kept for kept, _ in shares.values()}) > 1
    assert all(iterations > 0 for _, iterations in shares.values())
    assert all(iterations == 0 for _, iterations in segments.values())


@pytest.mark.long
def test_the_lasso_chooses_where_nothing_is_refitted_too(tiny_bert, tiny_sst2, tmp_path):
    method = {"tier": "trained", "training": {"start": "dense", "epochs": 2, "batch_size": 16}}
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", 0.6, method=method, recovery={"kind": "none"})
    assert 0.6 <= report.sparsity.achieved <= 0.61
    assert [phase.phase for phase in report.training.phases] == ["lasso", "fixed"]


def test_the_page_draws_the_norms_and_names_the_compressed_form(halved):
    out, report = halved
    assert report.compressed.status == "ok"
    assert report.compressed.bytes < report.bytes.pruned
    page, card = (out / "report.html").read_text(), (out / "README.md").read_text()
    assert "segments that stayed" in page
    assert "Compressed form" in page
    assert "compressed (`compressed/`)" in card


def test_the_trained_tier_without_labels_is_refused_unless_the_dense_model_teaches():
    fields = {
        "model": "org/name",
        "task": {"type": "feature-extraction", "dataset": "a/b", "columns": {"text": ["x"]}, "metric": "cosine"},
        "sparsity": 0.5,
        "method": {"name": "block-lasso", "tier": "trained"},
    }
    with pytest.raises(ValidationError, match="needs labels"):
        PruneSpec.model_validate(fields)
    fields["method"] = {"name": "block-lasso", "tier": "trained", "training": {"distillation": 1}}
    assert PruneSpec.model_validate(fields).method.tier == "trained"
    with pytest.raises(ValidationError, match="lasso must be > 0"):
        PruneSpec.model_validate(
            fields | {"method": {"name": "block-lasso", "tier": "trained", "training": {"start": "dense", "lasso": 0}}}
        )
