import json
import shutil

import pytest

from pruning_core.arch.adapter import adapt
from pruning_core.arch.structure import groups_of
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import DatasetInvalid, ModelUnreadable, TargetUnreachable, UnsupportedArchitecture
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.paths import is_local
from tests import tiny


@pytest.fixture
def model(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "model")


def test_paths_are_told_from_hub_ids():
    assert all(map(is_local, ("/a", "./a", "../a", "~/a")))
    assert not any(map(is_local, ("org/name", "name")))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_header_describes_the_same_units_as_the_modules(family, tmp_path):
    model = tiny.build_model(family)
    model.save_pretrained(tmp_path)
    tiny.write_tokenizer(tmp_path)
    facts = read_checkpoint(tmp_path)
    assert groups_of(facts) == adapt(model).groups
    assert facts.parameters == sum(p.numel() for p in model.parameters())


def test_good_input_passes(model, tiny_sst2):
    check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


def _truncate(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _garbage(model):
    (model / "model.safetensors").write_bytes(b"\x80\x02" + b"x" * 64)


def _bomb(model):
    (model / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def _pickle(model):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x02.")


def _missing_shard(model):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_truncate, "corrupt or truncated"),
        (_garbage, "corrupt or truncated"),
        (_bomb, "corrupt or truncated"),
        (_pickle, "pickle"),
        (_missing_shard, "shards are missing"),
        (lambda m: (m / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda m: (m / "config.json").unlink(), "no config.json"),
        (lambda m: (m / "config.json").write_text("{"), "not readable JSON"),
        (lambda m: (m / "config.json").write_text("[]"), "must be a JSON object"),
        (lambda m: (m / "tokenizer.json").unlink(), "no tokenizer"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_damaged_checkpoints_are_refused(model, tiny_sst2, damage, says):
    damage(model)
    with pytest.raises(ModelUnreadable, match=says):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


def test_unknown_structure_is_refused_and_says_what_is_supported(tiny_sst2, tmp_path):
    import transformers

    config = transformers.FNetConfig(hidden_size=16, num_hidden_layers=1, intermediate_size=8, vocab_size=50)
    transformers.FNetModel(config).save_pretrained(tmp_path)
    tiny.write_tokenizer(tmp_path)
    with pytest.raises(UnsupportedArchitecture, match=r"fnet.*BERT.*DeBERTa"):
        check_local_inputs(tiny.tiny_spec(tmp_path, tiny_sst2))


@pytest.mark.parametrize(
    "target",
    [{"metric": "macs", "keep": 0.01}, {"metric": "params", "keep": 0.05}, {"metric": "sparsity", "sparsity": 0.99}],
)
def test_targets_out_of_reach_are_refused_with_the_reach(model, tiny_sst2, target):
    with pytest.raises(TargetUnreachable, match=r"at (least|most) 0\.\d+ of"):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2, target=target))


def test_missing_split_is_refused(model, tiny_sst2, tmp_path):
    folder = shutil.copytree(tiny_sst2, tmp_path / "data")
    (folder / "validation.parquet").rename(folder / "unsupervised.parquet")  # beside train alone, a share would be held out
    with pytest.raises(DatasetInvalid, match="no validation split"):
        check_local_inputs(tiny.tiny_spec(model, folder))
    with pytest.raises(DatasetInvalid, match="no such folder"):
        check_local_inputs(tiny.tiny_spec(model, tmp_path / "nowhere"))
