"""The whole pipeline on tiny models: every family, method and recovery; what is written loads anywhere and says the truth."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.arch.structure import groups_of
from pruning_core.errors import DatasetInvalid, ModelUnreadable, PruningError, TargetMissed, TargetUnreachable
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.report.progress import STAGES
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from tests import tiny


def _run(spec, out, **kwargs):
    return run(spec, out, device="cpu", **kwargs)


@pytest.fixture(scope="module")
def bundle(tiny_bert, tiny_sst2, tmp_path_factory):
    """A finished bundle, its spec and its report."""
    out = tmp_path_factory.mktemp("bundle") / "out"
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2)
    seen = []
    report = _run(spec, out, on_progress=seen.append, name="of the tests")
    return out, spec, report, seen


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_runs_and_meets_its_target(family, tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", family)
    report = _run(tiny.tiny_spec(model, tiny_sst2), tmp_path / "out")
    assert 0.49 <= report.target.achieved <= 0.5
    assert report.macs.pruned < report.macs.dense
    assert report.parameters.pruned < report.parameters.dense
    assert report.bytes.pruned < report.bytes.dense


@pytest.mark.parametrize(
    "method", ["fisher-cg", "magnitude", "random", {"name": "fisher-cg", "rearrange": True, "labels": "ignore"}]
)
@pytest.mark.parametrize(
    "recovery", [{"kind": "none"}, {"kind": "masks", "solver": "cg"}, {"kind": "masks", "solver": "lsmr"}, {"solver": "pcg"}]
)
@pytest.mark.long
def test_every_method_works_with_every_recovery(method, recovery, tiny_bert, tiny_sst2, tmp_path):
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2, method=method, recovery=recovery)
    report = _run(spec, tmp_path / "out")
    assert report.target.achieved <= 0.5
    wanted = recovery.get("solver", "none")
    assert {layer.ffn.solver for layer in report.layers} == {wanted}


@pytest.mark.parametrize(
    "target", [{"metric": "sparsity", "sparsity": 0.6}, {"metric": "params", "keep": 0.7}, {"metric": "macs", "keep": 0.8}]
)
@pytest.mark.long
def test_every_metric_is_met_from_below(target, tiny_bert, tiny_sst2, tmp_path):
    report = _run(tiny.tiny_spec(tiny_bert, tiny_sst2, target=target), tmp_path / "out")
    requested = target.get("keep", target.get("sparsity"))
    beyond = report.target.achieved - requested
    assert abs(beyond) <= 0.01
    assert beyond >= -1e-9 if target["metric"] == "sparsity" else beyond <= 1e-9


@pytest.mark.long
def test_the_report_is_recounted_from_the_files(bundle):
    out, _spec, report, _seen = bundle
    weights = load_file(out / "model.safetensors")
    assert report.parameters.pruned == sum(tensor.numel() for tensor in weights.values())
    assert report.bytes.pruned == (out / "model.safetensors").stat().st_size
    groups = groups_of(read_checkpoint(out))
    assert [(layer.kept_heads, layer.kept_neurons) for layer in report.layers] == [
        (heads.size, neurons.size) for heads, neurons in zip(groups[::2], groups[1::2], strict=True)
    ]
    assert [len(layer.head_indices) for layer in report.layers] == [layer.kept_heads for layer in report.layers]
    assert Report.model_validate_json((out / "report.json").read_text()) == report
    assert report.name == "of the tests"
    assert set(report.seconds.by_stage) == set(STAGES) - {"engines"}


def test_the_manifest_names_every_other_file(bundle):
    out = bundle[0]
    manifest = json.loads((out / "manifest.json").read_text())["files"]
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(manifest) == present - {"manifest.json"}
    for name, entry in manifest.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == entry["sha256"]


def test_the_umask_decides_who_may_read_the_bundle(bundle, tmp_path):
    out = bundle[0]
    (tmp_path / "mine").touch()
    assert {path.stat().st_mode for path in out.rglob("*") if path.is_file()} == {(tmp_path / "mine").stat().st_mode}


def test_nothing_in_the_bundle_tells_where_it_was_made(bundle, tiny_bert):
    out = bundle[0]
    for path in out.rglob("*"):
        if path.suffix in (".json", ".md", ".py") and path.name != "report.json":
            assert str(tiny_bert.parent) not in path.read_text(), path.name


def test_progress_goes_forward_through_the_stages(bundle):
    seen = bundle[3]
    order = [STAGES.index(progress.stage) for progress in seen]
    assert order == sorted(order)
    assert seen[-1].fraction == pytest.approx(1)


@pytest.mark.long
def test_same_seed_same_bytes_other_seed_other_bytes(bundle, tmp_path):
    out, spec, _report, _seen = bundle
    _run(spec, tmp_path / "again")
    _run(spec.model_copy(update={"seed": 1}), tmp_path / "other")
    reference = (out / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == reference
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != reference


_LOAD = """
import json, sys
{prelude}
import torch
from transformers import {auto}, AutoTokenizer
model = {auto}.from_pretrained(sys.argv[1], {options})
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer(["word1 good word3", "bad word5"], padding=True, return_tensors="pt")
with torch.no_grad():
    output = model.eval()(**inputs)[0]
print(json.dumps([output.flatten().tolist()[:8], sum(p.numel() for p in model.parameters()), "pruning_core" in sys.modules]))
"""


def _load_fresh(folder, *, auto="AutoModelForSequenceClassification", prelude="import pruning_core", options=""):
    code = _LOAD.format(prelude=prelude, auto=auto, options=options)
    # -I: neither the working directory nor the environment can smuggle pruning_core in.
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(folder)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.long
def test_a_fresh_process_loads_it_either_way_and_to_the_same_numbers(bundle):
    out, _spec, report, _seen = bundle
    before = _load_fresh(out)
    after = _load_fresh(out, prelude="import transformers, pruning_core")
    remote = _load_fresh(out, prelude="", options="trust_remote_code=True")
    assert before[0] == after[0] == remote[0]
    assert before[1] == remote[1] == report.parameters.pruned
    assert (before[2], remote[2]) == (True, False)


@pytest.mark.slow
@pytest.mark.long
def test_the_bare_encoder_loads_too(bundle):
    assert _load_fresh(bundle[0], auto="AutoModel")[1] < bundle[2].parameters.pruned


@pytest.mark.slow
def test_without_the_plug_in_loading_fails_instead_of_giving_noise(bundle):
    code = _LOAD.format(prelude="", auto="AutoModelForSequenceClassification", options="")
    done = subprocess.run([sys.executable, "-I", "-c", code, str(bundle[0])], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "trust_remote_code=True" in done.stderr, "it asks by name"
    assert "mismatch" not in done.stderr.lower(), "nothing offers to fill layers at random"


def test_loading_is_exact_and_saving_again_keeps_it(bundle, tmp_path):
    from transformers import AutoModelForSequenceClassification

    out = bundle[0]
    model = AutoModelForSequenceClassification.from_pretrained(out)
    for name, tensor in load_file(out / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_bundle_can_be_pruned_further(bundle, tiny_sst2, tmp_path):
    report = _run(tiny.tiny_spec(bundle[0], tiny_sst2), tmp_path / "out")
    assert report.parameters.dense == bundle[2].parameters.pruned
    assert 0.48 <= report.target.achieved <= 0.5


@pytest.mark.long
def test_half_precision_stays_half_precision(tiny_bert, tiny_sst2, tmp_path):
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    halves = {name: tensor.half() for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(halves, model / "model.safetensors", metadata={"format": "pt"})
    _run(tiny.tiny_spec(model, tiny_sst2), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"


@pytest.mark.long
def test_embeddings_need_no_labels(tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="features")
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    task = {
        "type": "feature-extraction",
        "dataset": str(tiny.write_jsonl(tmp_path / "data")),
        "columns": {"text": ["text"]},
        "metric": "cosine",
    }
    spec = tiny.tiny_spec(model, tmp_path / "data", task=task)
    report = _run(spec, tmp_path / "out")
    assert report.quality.metric == "cosine"
    assert 0.5 < report.quality.pruned < 1
    assert 0 <= report.quality.details["nearest_neighbour_agreement"] <= 1
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()


def test_regression(tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", num_labels=1)
    task = {
        "type": "regression",
        "dataset": str(tiny_sst2),
        "columns": {"text": ["sentence"], "label": "idx"},
        "metric": "spearman",
    }
    report = _run(tiny.tiny_spec(model, tiny_sst2, task=task), tmp_path / "out")
    assert report.quality.details["pearson_with_dense"] > 0.3


@pytest.mark.long
def test_fewer_rows_than_samples_is_a_warning(tiny_bert, tmp_path):
    data = tiny.write_dataset(tmp_path / "data", rows=40)
    report = _run(tiny.tiny_spec(tiny_bert, data), tmp_path / "out")
    assert report.data.samples == 40
    assert "only 40 training rows" in report.warnings[0]


def test_an_output_folder_in_use_is_left_alone(tiny_bert, tiny_sst2, tmp_path):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(PruningError, match="must not exist, or be empty"):
        _run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_an_error_leaves_nothing_behind(tiny_bert, tiny_sst2, tmp_path):
    with pytest.raises(TargetUnreachable):
        _run(tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "macs", "keep": 0.05}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_missed_target_keeps_the_best_candidate(tiny_bert, tiny_sst2, tmp_path):
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "macs", "keep": 0.5, "tolerance": 1e-9})
    with pytest.raises(TargetMissed, match="units of this model may be too coarse") as caught:
        _run(spec, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert caught.value.report == Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert caught.value.report.target.achieved < 0.5


def test_labels_that_are_required_but_missing(tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="features")
    task = {
        "type": "feature-extraction",
        "dataset": str(tiny.write_jsonl(tmp_path / "data")),
        "columns": {"text": ["text"]},
        "metric": "cosine",
    }
    method = {"name": "fisher-cg", "labels": "use"}
    with pytest.raises(DatasetInvalid, match="labels are required"):
        _run(tiny.tiny_spec(model, tmp_path / "data", task=task, method=method), tmp_path / "out")


def test_a_checkpoint_without_the_tasks_head_is_refused(tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="features")
    with pytest.raises(ModelUnreadable, match="lacks weights that a text-classification model needs"):
        _run(tiny.tiny_spec(model, tiny_sst2), tmp_path / "out")


def test_a_checkpoint_without_a_tokenizer_is_refused(tiny_bert, tiny_sst2, tmp_path):
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    with pytest.raises(ModelUnreadable, match="tokenizer"):
        _run(tiny.tiny_spec(model, tiny_sst2), tmp_path / "out")


def test_a_target_that_only_the_data_shows_to_be_out_of_reach(tiny_bert, tiny_sst2, tmp_path):
    with pytest.raises(TargetUnreachable):
        _run(tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "macs", "keep": 0.05}), tmp_path / "out")


@pytest.mark.long
def test_several_budgets_give_a_checkpoint_each_and_a_frontier(bundle, tiny_bert, tiny_sst2, tmp_path):
    targets = [{"metric": "macs", "keep": 0.5}, {"metric": "macs", "keep": 0.8}, {"metric": "sparsity", "sparsity": 0.7}]
    seen = []
    report = _run(tiny.tiny_spec(tiny_bert, tiny_sst2, target=None, targets=targets), tmp_path / "out", on_progress=seen.append)
    assert [point.path for point in report.frontier] == [".", "macs-0.8", "sparsity-0.7"]
    assert report.frontier[0].target == report.target
    assert all(abs(point.target.achieved - point.target.requested) <= 0.01 for point in report.frontier)
    assert report.frontier[1].parameters.pruned > report.frontier[0].parameters.pruned > report.frontier[2].parameters.pruned
    for point in report.frontier[1:]:
        folder = tmp_path / "out" / point.path
        assert read_checkpoint(folder).parameters == point.parameters.pruned
        own = Report.model_validate_json((folder / "report.json").read_text())
        assert (own.target, own.quality, own.frontier) == (point.target, point.quality, ())
        assert (folder / "tokenizer.json").is_file()
    # A budget's checkpoint is the same whether it came alone or among others.
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (bundle[0] / "model.safetensors").read_bytes()
    fractions = [progress.fraction for progress in seen]
    assert fractions == pytest.approx(sorted(fractions))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert "macs-0.8/model.safetensors" in manifest


@pytest.mark.parametrize("memory_mb", [16, 1024])
@pytest.mark.long
def test_batch_size_changes_the_result_by_rounding_only(memory_mb, tiny_bert, tiny_sst2, tmp_path):
    outputs, precision = [], "float32"
    for batch_tokens in (64, 1024):
        options = {
            "samples": 64,
            "max_length": 32,
            "batch_tokens": batch_tokens,
            "precision": precision,
            "memory_mb": memory_mb,
        }
        _run(tiny.tiny_spec(tiny_bert, tiny_sst2, calibration=options), tmp_path / str(batch_tokens))
        outputs.append(load_file(tmp_path / str(batch_tokens) / "model.safetensors"))
    for name, tensor in outputs[0].items():
        torch.testing.assert_close(tensor, outputs[1][name], rtol=1e-3, atol=1e-3)


@pytest.mark.long
def test_bfloat16_products_choose_nearly_the_same_and_end_as_well(tiny_bert, tiny_sst2, tmp_path):
    reports = []
    for precision in ("float32", "bfloat16"):
        options = {"samples": 64, "max_length": 32, "precision": precision}
        reports.append(_run(tiny.tiny_spec(tiny_bert, tiny_sst2, calibration=options), tmp_path / precision))
    exact, rounded = reports
    for a, b in zip(exact.layers, rounded.layers, strict=True):
        assert a.head_indices == b.head_indices
        assert abs(a.kept_neurons - b.kept_neurons) <= 2
    assert rounded.quality.pruned == pytest.approx(exact.quality.pruned, abs=0.02)


@pytest.mark.long
def test_longer_sampling_takes_the_longer_half_and_counts_by_the_tasks_mean(tiny_bert, tiny_sst2, tmp_path):
    reports = {
        sampling: _run(
            tiny.tiny_spec(tiny_bert, tiny_sst2, calibration={"samples": 64, "max_length": 32, "sampling": sampling}),
            tmp_path / sampling,
        )
        for sampling in ("longer", "uniform")
    }
    assert reports["longer"].data.samples == reports["uniform"].data.samples == 64
    assert reports["longer"].data.tokens > 1.2 * reports["uniform"].data.tokens
    assert reports["longer"].data.mean_length == pytest.approx(reports["uniform"].data.mean_length, rel=0.2)
    assert reports["uniform"].data.mean_length == reports["uniform"].data.tokens / 64


@pytest.mark.slow
@pytest.mark.long
def test_a_latency_is_met_and_its_table_kept(tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", hidden_size=256, intermediate_size=2048)
    spec = tiny.tiny_spec(
        model,
        tiny_sst2,
        target={"metric": "latency", "keep": 0.6, "tolerance": 0.2},
        latency={"batch": 8, "length": 64, "repeats": 20},
    )
    report = _run(spec, tmp_path / "out", cache=tmp_path / "cache")
    assert 0.4 <= report.target.achieved <= 0.6
    assert report.target.achieved == pytest.approx(1 / report.latency_ms.speedup)
    [table] = (tmp_path / "cache").glob("*.json")
    table.write_text(table.read_text()[:-20])  # damaged: measured again, not trusted
    _run(spec, tmp_path / "again", cache=tmp_path / "cache")
    assert json.loads(table.read_text())["total"] > 0


def test_a_latency_below_what_the_smallest_model_takes_is_refused(tiny_bert, tiny_sst2, tmp_path):
    with pytest.raises(TargetUnreachable, match="of the latency must be kept"):
        _run(tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "latency", "keep": 0.01}), tmp_path / "out")


@pytest.mark.parametrize(
    ("device", "says"),
    [("cuda:99", "CUDA devices on this machine"), ("gpu", "must be cpu, cuda"), ("meta", "must be cpu, cuda")],
)
def test_a_device_that_is_not_there_is_refused(device, says, tiny_bert, tiny_sst2, tmp_path):
    with pytest.raises(PruningError, match=says) as caught:
        run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", device=device)
    assert caught.value.param == "device"


def test_peak_memory_in_the_report_is_that_of_the_process(bundle):
    import resource

    # The system counts pages thread by thread, and adds up now and then.
    peak = 1.01 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 50 * 2**20 < bundle[2].peak_memory_bytes <= peak
