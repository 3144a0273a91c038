"""Checkpoints in several files: read by every method, and written where they are large."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file

from pruning_core.run.pipeline import run
from tests import tiny

METHODS = [
    "fisher-cg",
    *(
        pytest.param(own, marks=pytest.mark.matrix)
        for own in ("magnitude", {"name": "admm-pattern", "pattern": "2:4"}, {"name": "block-lasso"})
    ),
]


def spec_of(method, model, data, **changes):
    name = method if isinstance(method, str) else method["name"]
    target = None if name == "admm-pattern" else {"metric": "sparsity", "sparsity": 0.4, "tolerance": 0.05}
    return tiny.tiny_spec(model, data, method=method, target=target, **changes)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """The tiny model in several files."""
    folder = tmp_path_factory.mktemp("sharded")
    model = tiny.build_model("bert")
    model.save_pretrained(folder, max_shard_size="20KB")
    tiny.write_tokenizer(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.long
def test_a_sharded_model_gives_the_same_bytes_as_one_file(method, sharded, tiny_bert, tiny_sst2, tmp_path):
    reports = [
        run(spec_of(method, model, tiny_sst2), tmp_path / out, device="cpu")
        for model, out in ((sharded, "sharded"), (tiny_bert, "single"))
    ]
    assert reports[0].bytes.pruned == reports[1].bytes.pruned
    ours, theirs = (load_file(tmp_path / out / "model.safetensors") for out in ("sharded", "single"))
    assert all(bool((ours[key] == theirs[key]).all()) for key in theirs)


def test_a_missing_shard_is_named(sharded, tiny_sst2, tmp_path):
    from pruning_core.errors import ModelUnreadable

    model = shutil.copytree(sharded, tmp_path / "model")
    weights = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    lost = sorted(set(weights.values()))[0]
    (model / lost).unlink()
    with pytest.raises(ModelUnreadable, match=f"shards are missing: {lost}"):
        run(tiny.tiny_spec(model, tiny_sst2), tmp_path / "out", device="cpu")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.long
def test_a_bundle_in_several_files_proves_itself_and_can_be_pruned_again(method, tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", hidden_size=128, intermediate_size=512)
    report = run(spec_of(method, model, tiny_sst2, artifacts={"shard_mb": 1}), tmp_path / "out", device="cpu")
    files = list((tmp_path / "out").glob("model-*.safetensors"))
    assert len(files) > 1
    assert report.bytes.pruned == sum(path.stat().st_size for path in files)
    assert report.acceptance.parameters == report.parameters.pruned
    again = run(spec_of("magnitude", tmp_path / "out", tiny_sst2), tmp_path / "again", device="cpu")
    assert again.bytes.dense == report.bytes.pruned
