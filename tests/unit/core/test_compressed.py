"""The compressed form: every encoding bit for bit, what is smaller and what stays, corruption, and stock loading."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.artifacts.compressed import COMPRESSED_PATH, expand, pack, write_compressed
from pruning_core.errors import ModelUnreadable
from pruning_core.plugin.per_layer import unpack
from pruning_core.run.pipeline import run
from pruning_core.spec.grammar import BlockPattern, SegmentBlock
from tests import tiny
from tests.families import ARCHITECTURES


def random_weight(d: int, k: int, kept: float, dtype=torch.float16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(d * k)
    weight = torch.randn(d, k, generator=generator).to(dtype)
    return torch.where(torch.rand(d, k, generator=generator) < kept, weight, torch.zeros((), dtype=dtype))


def patterned(n: int, m: int) -> torch.Tensor:
    weight = random_weight(16, 48, 1.0)
    order = torch.rand(16, 48 // m, m, generator=torch.Generator().manual_seed(n)).argsort(-1)
    return (weight.unflatten(1, (-1, m)) * (order < n)).flatten(1) + 0


def segmented(block: SegmentBlock) -> torch.Tensor:
    weight, axis = random_weight(20, 50, 1.0), 1 if block.segment == "row" else 0
    shape = [20, 50]
    shape[axis] = -(-shape[axis] // block.length)
    kept = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4
    return weight * kept.repeat_interleave(block.length, axis).narrow(axis, 0, weight.shape[axis]) + 0


@pytest.mark.parametrize(
    ("weight", "hint", "form"),
    [
        (patterned(2, 4), BlockPattern(1, 4, 2), "indices"),
        (patterned(1, 8), BlockPattern(1, 8, 1), "indices"),
        (patterned(4, 8), BlockPattern(1, 8, 4), "bits"),  # three bits for each of four places are more than eight bits
        (random_weight(30, 41, 0.3), None, "bits"),
        (random_weight(30, 41, 0.3, torch.bfloat16), BlockPattern(4, 4, 8), "bits"),
        (segmented(SegmentBlock(8, 16, "row")), SegmentBlock(8, 16, "row"), "segments"),
        (segmented(SegmentBlock(8, 16, "column")), SegmentBlock(8, 16, "column"), "segments"),
        (torch.zeros(6, 8, dtype=torch.float16), BlockPattern(1, 4, 2), "bits"),
    ],
)
def test_every_form_gives_the_very_bits_back_and_is_smaller(weight, hint, form):
    packed = pack(weight, hint)
    assert packed is not None
    assert packed.form["form"] == form
    assert packed.nbytes < weight.nbytes
    form_read = json.loads(json.dumps(packed.form))
    found = unpack("m", packed.values, packed.index, form_read)
    assert torch.equal(found.view(torch.int16), weight.view(torch.int16))


def test_a_dense_matrix_stays_as_it_is():
    assert pack(random_weight(16, 16, 1.0), BlockPattern(1, 4, 2)) is None


def test_blocks_that_hold_more_than_the_pattern_are_no_reason_to_lose_a_weight():
    weight = patterned(2, 4)
    weight[0, :4] = 1
    packed = pack(weight, BlockPattern(1, 4, 2))
    assert packed is not None
    assert packed.form["form"] == "bits"
    assert torch.equal(unpack("m", packed.values, packed.index, packed.form), weight)


@pytest.fixture(scope="module")
def bundle(tiny_bert, tiny_sst2, tmp_path_factory):
    """A 2:4 bundle in float16 with its compressed form, and the report."""
    spec = tiny.tiny_spec(
        tiny_bert,
        tiny_sst2,
        target=None,
        method="admm-pattern",
        artifacts={"dtype": "float16", "layout": "stock"} | {"formats": ["safetensors", "compressed"]},
    )
    out = tmp_path_factory.mktemp("compressed") / "out"
    return out, run(spec, out, device="cpu")


@pytest.mark.long
def test_the_report_says_what_the_folder_holds(bundle):
    out, report = bundle
    assert report.compressed.status == "ok"
    assert report.compressed.forms == {"indices": 12}
    written = (out / COMPRESSED_PATH / "model.safetensors").stat().st_size
    assert report.compressed.bytes == written < report.bytes.pruned
    manifest = json.loads((out / "manifest.json").read_text())["files"]
    assert manifest[f"{COMPRESSED_PATH}/model.safetensors"]["size"] == written


def test_stock_loading_gives_the_dense_model_and_saves_it_as_one(bundle, tmp_path):
    from transformers import AutoModelForSequenceClassification

    out, _ = bundle
    dense = AutoModelForSequenceClassification.from_pretrained(out)
    found = AutoModelForSequenceClassification.from_pretrained(out / COMPRESSED_PATH)
    assert found.dtype == dense.dtype == torch.float16
    wanted = dense.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.state_dict().items())
    found.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.state_dict().items())


def test_expanding_gives_the_dense_layout(bundle, tmp_path):
    out, _ = bundle
    expand(out / COMPRESSED_PATH, tmp_path / "dense")
    wanted, found = load_file(out / "model.safetensors"), load_file(tmp_path / "dense" / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (out, tmp_path / "dense")]
    assert configs[0] == configs[1]


def test_matrices_that_files_call_something_else_are_found_there(tmp_path):
    from transformers import ViTForImageClassification

    folder = ARCHITECTURES["vit"].write(tmp_path / "dense")
    model = ViTForImageClassification.from_pretrained(folder)
    path = "vit.layers.0.attention.q_proj"
    with torch.no_grad():
        model.get_parameter(f"{path}.weight")[::2] = 0
    model.save_pretrained(folder)
    wanted = load_file(folder / "model.safetensors")
    assert f"{path}.weight" not in wanted
    assert write_compressed(folder, {path: None}, {}) == {"bits": 1}
    shutil.copy(folder / "preprocessor_config.json", folder / COMPRESSED_PATH)
    loaded = type(model).from_pretrained(folder / COMPRESSED_PATH)
    assert torch.equal(loaded.get_parameter(f"{path}.weight"), model.get_parameter(f"{path}.weight"))
    expand(folder / COMPRESSED_PATH, tmp_path / "again")
    found = load_file(tmp_path / "again" / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("part", ["weight_index", "weight_values"])
def test_a_corrupt_form_is_refused(bundle, tmp_path, part):
    import shutil

    out, _ = bundle
    shutil.copytree(out / COMPRESSED_PATH, tmp_path / "bad")
    path = tmp_path / "bad" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith(part))
    weights[name].view(torch.uint8)[3] ^= 5
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelUnreadable, match="corrupt"):
        expand(tmp_path / "bad", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_corrupt_index_is_refused_by_stock_loading(bundle, tmp_path):
    import shutil

    from transformers import AutoModelForSequenceClassification

    out, _ = bundle
    shutil.copytree(out / COMPRESSED_PATH, tmp_path / "bad")
    path = tmp_path / "bad" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("weight_index"))
    weights[name][0] ^= 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="corrupt"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "bad")


def test_what_is_no_compressed_checkpoint_is_said_to_be_none(tiny_bert, tmp_path):
    with pytest.raises(ModelUnreadable, match="no compressed checkpoint"):
        expand(tiny_bert, tmp_path / "out")
