"""``admm-pattern`` through the whole pipeline on tiny models: what is written satisfies the pattern and loads anywhere."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from pruning_core.errors import TargetMissed, TargetUnreachable
from pruning_core.run.pipeline import run
from pruning_core.run.verdict import rejection
from pruning_core.spec.prune import PruneSpec
from tests import tiny

LINEARS = 2 * 6


def spec_of(model, data, pattern="2:4", **changes):
    method = {"name": "admm-pattern", "pattern": pattern} | changes.pop("method", {})
    return tiny.tiny_spec(model, data, method=method, **({"target": None} | changes))


def prune(model, data, out, pattern="2:4", **changes):
    return run(spec_of(model, data, pattern, **changes), out, device="cpu")


@pytest.fixture(scope="module")
def two_of_four(tiny_bert, tiny_sst2, tmp_path_factory):
    """A finished 2:4 bundle and its report."""
    out = tmp_path_factory.mktemp("pattern") / "out"
    return out, prune(tiny_bert, tiny_sst2, out)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.long
def test_every_family_keeps_its_shapes_and_satisfies_the_pattern(family, tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", family)
    report = prune(model, tiny_sst2, tmp_path / "out")
    assert report.pattern is not None
    assert (report.pattern.violations, report.pattern.blocks) == (0, report.pattern.prunable_weights // 4)
    assert report.target.metric == "pattern"
    assert 0.5 <= report.sparsity.achieved < 0.501
    assert report.parameters.pruned == report.parameters.dense
    dense, written = load_file(model / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert {name: tensor.shape for name, tensor in written.items()} == {name: tensor.shape for name, tensor in dense.items()}
    pruned = {matrix.name for matrix in report.pattern.matrices}
    assert len(pruned) == LINEARS
    untouched = [name for name in dense if name.rpartition(".")[0] not in pruned]
    assert all(torch.equal(dense[name], written[name]) for name in untouched)


@pytest.mark.parametrize(("pattern", "sparsity"), [("4:8", 0.5), ("4x4:8", 0.5), ("unstructured", 0.7)])
@pytest.mark.long
def test_every_kind_of_pattern_reaches_what_it_says(pattern, sparsity, tiny_bert, tiny_sst2, tmp_path):
    target = {"metric": "sparsity", "sparsity": sparsity} if pattern == "unstructured" else None
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", pattern, target=target)
    assert report.pattern is not None
    assert report.pattern.violations == 0
    assert sparsity <= report.target.achieved < sparsity + 0.005
    assert (0 < len(report.pattern.pool) <= 32) == (pattern == "4x4:8")


@pytest.mark.long
def test_a_baseline_without_refit_keeps_the_dense_weights_on_its_support(tiny_bert, tiny_sst2, tmp_path):
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", method={"selection": "wanda"}, recovery={"kind": "none"})
    assert report.pattern is not None
    assert (report.pattern.selection, report.pattern.violations) == ("wanda", 0)
    dense, written = load_file(tiny_bert / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    for matrix in report.pattern.matrices:
        kept = written[f"{matrix.name}.weight"] != 0
        assert torch.equal(written[f"{matrix.name}.weight"][kept], dense[f"{matrix.name}.weight"][kept])
        assert (matrix.status, matrix.refit_steps, matrix.iterations) == ("skipped", 0, 0)


@pytest.mark.long
def test_the_bundle_loads_in_stock_transformers_and_says_so(two_of_four):
    out, report = two_of_four
    assert report.layout == "stock"
    assert report.acceptance is not None
    assert report.acceptance.loader == "stock"
    assert report.acceptance.max_difference <= report.acceptance.tolerance
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert not (out / "modeling_coppice.py").exists()


def test_the_report_is_honest_about_what_zeros_buy(two_of_four):
    out, report = two_of_four
    assert report.macs.pruned == report.macs.dense
    assert report.pattern.nonzero_macs < 0.6 * report.macs.dense
    assert any("no faster on devices that do not skip zeros" in warning for warning in report.warnings)
    card, page = (out / "README.md").read_text(), (out / "report.html").read_text()
    assert "no smaller, and no faster" in card
    assert "weights of the blocks that are not zero" in card
    assert "Heads and neurons were removed" not in card
    assert "Asked for 2:4 in every matrix" in page
    assert "Every matrix" in page


@pytest.mark.long
def test_the_recount_reads_the_files(two_of_four, tiny_bert, tiny_sst2, tmp_path, monkeypatch):
    """A checkpoint whose written weights break the pattern is delivered as rejected, whatever was planned."""
    from pruning_core.run import candidate as checkpoint

    write = checkpoint.write_checkpoint

    def spoil(folder, *args):
        write(folder, *args)
        weights = load_file(folder / "model.safetensors")
        weights["bert.encoder.layer.1.output.dense.weight"][0, :4] = 1.0
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(checkpoint, "write_checkpoint", spoil)
    with pytest.raises(TargetMissed, match="1 of 4096 blocks of the written weights do not satisfy 2:4") as caught:
        prune(tiny_bert, tiny_sst2, tmp_path / "out")
    assert caught.value.report is not None
    assert caught.value.report.pattern is not None
    assert caught.value.report.pattern.violations == 1


@pytest.mark.long
def test_what_blocks_do_not_divide_stays_dense_and_is_stated(tiny_bert, tiny_sst2, tmp_path):
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", "3:5")
    assert report.pattern is not None
    assert report.target.achieved == pytest.approx(0.4)
    assert report.sparsity.achieved < 0.4
    query = report.pattern.dense_remainders[0]
    assert (query.name, query.inputs, query.weights) == ("bert.encoder.layer.0.attention.self.query", 2, 64)
    assert any("stay dense, since blocks of 3:5 do not divide 12 matrices" in warning for warning in report.warnings)


@pytest.mark.long
def test_several_sparsities_make_a_frontier(tiny_bert, tiny_sst2, tmp_path):
    targets = [{"metric": "sparsity", "sparsity": sparsity} for sparsity in (0.5, 0.8)]
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", "unstructured", targets=targets)
    assert [round(point.sparsity.achieved, 2) for point in report.frontier] == [0.5, 0.8]


@pytest.mark.long
def test_the_same_spec_gives_the_same_bytes(two_of_four, tiny_bert, tiny_sst2, tmp_path):
    prune(tiny_bert, tiny_sst2, tmp_path / "again")
    out, _ = two_of_four
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.long
def test_little_memory_changes_nothing_but_where_states_lie(two_of_four, tmp_path, tiny_sst2, tiny_bert):
    calibration = {"samples": 64, "max_length": 32, "batch_tokens": 256, "memory_mb": 16}
    report = prune(tiny_bert, tiny_sst2, tmp_path / "out", calibration=calibration)
    assert report.quality.pruned == pytest.approx(two_of_four[1].quality.pruned, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": {"name": "admm-pattern", "pattern": "4:4"}}, "must keep at least 1 and at most 3 of the 4"),
        ({"method": {"name": "admm-pattern", "pattern": "5:4"}}, "must keep at least 1 and at most 3 of the 4"),
        ({"method": {"name": "admm-pattern", "pattern": "half"}}, "must be N:M such as 2:4"),
        ({"method": {"name": "admm-pattern", "pattern": "unstructured"}}, "needs a sparsity"),
        ({"sparsity": 0.6, "method": "admm-pattern"}, "pattern 2:4 means a sparsity of 0.5"),
        ({"target": {"metric": "macs", "keep": 0.5}, "method": "admm-pattern"}, "keeps every shape"),
        ({"target": {"metric": "latency", "keep": 0.5}, "method": "admm-pattern"}, "keeps every shape"),
        ({"recovery": {"kind": "masks"}, "method": "admm-pattern"}, "recovery.kind must be weights or none"),
        ({"target": {"metric": "pattern", "sparsity": 0.5}}, "needs method admm-pattern"),
        ({"quality_floor": 0.9, "method": {"name": "admm-pattern", "pattern": "unstructured"}}, "needs a sparsity"),
    ],
)
def test_specs_that_do_not_fit_are_refused_at_once(changes, says):
    with pytest.raises(ValidationError) as caught:
        PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2"} | changes)
    assert any(says in error["msg"] for error in caught.value.errors()), caught.value.errors()


def test_the_target_follows_from_the_pattern_and_survives_json():
    spec = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "method": "admm-pattern", "quality_floor": 0.9})
    assert spec.target is not None
    assert (spec.target.metric, spec.target.requested) == ("pattern", 0.5)
    assert spec.artifacts.layout == "stock"
    assert PruneSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_pattern_larger_than_a_matrix_is_refused_before_any_work(tiny_bert, tiny_sst2, tmp_path):
    with pytest.raises(TargetUnreachable, match=r"pattern 20:40 is larger than attention\.self\.query of layer 0") as caught:
        prune(tiny_bert, tiny_sst2, tmp_path / "out", "20:40")
    assert caught.value.param == "method.pattern"


def test_a_kept_promise_is_no_rejection(two_of_four, tiny_bert, tiny_sst2):
    assert rejection(spec_of(tiny_bert, tiny_sst2), [two_of_four[1]], []) is None
