"""Quantised checkpoints: what is in them, what stock libraries make of them, and what is refused with its reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pruning_core.artifacts.exports import compressed_tensors as quantised
from pruning_core.artifacts.exports.registry import export_all
from pruning_core.checks.method import check_request
from pruning_core.errors import UnsupportedArchitecture
from tests import exported, tiny

pytest.importorskip("compressed_tensors", reason="not installed: pip install 'coppice-prune[engines]'")


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return exported.write_llama(tmp_path_factory.mktemp("llama"))


def _of(folder: Path, source: Path, kind: str, **options):
    shutil.copytree(source, folder, dirs_exist_ok=True)
    asked = exported.asked(folder, formats=["safetensors", "compressed-tensors"], quantization=kind, **options)
    (row,) = export_all(asked)
    return row


@pytest.mark.parametrize(("kind", "most"), [("fp8", 0.3), ("int8", 0.2), ("w4a16", 0.6)])
@pytest.mark.long
def test_a_quantised_checkpoint_loads_by_stock_transformers_and_answers_nearly_alike(kind, most, llama, tmp_path):
    row = _of(tmp_path, llama, kind)
    assert (row.status, row.path, row.kind) == ("ok", "compressed-tensors", kind), row.reason
    assert 0 < row.max_difference < most
    out = tmp_path / row.path
    assert row.bytes == sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert row.bytes < (tmp_path / "model.safetensors").stat().st_size
    assert (out / "tokenizer.json").exists()
    said = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (said["quant_method"], said["ignore"]) == ("compressed-tensors", ["lm_head"])


@pytest.mark.parametrize(("kind", "bits"), [("fp8", None), ("int8", 8), ("w4a16", 4)])
@pytest.mark.long
def test_weights_are_the_nearest_of_their_scale_and_embeddings_and_head_stay(kind, bits, llama, tmp_path):
    from compressed_tensors.compressors import BaseCompressor

    _of(tmp_path, llama, kind)
    whole, packed = load_file(tmp_path / "model.safetensors"), load_file(tmp_path / "compressed-tensors" / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert torch.equal(whole[name], packed[name])
    name = "model.layers.1.mlp.down_proj"
    scheme = quantised._scheme(kind, 128 if kind == "w4a16" else 0, ["Linear"])
    own = {part.removeprefix(f"{name}."): tensor for part, tensor in packed.items() if part.startswith(name)}
    assert own["weight_scale"].dtype == torch.bfloat16
    back = BaseCompressor.get_value_from_registry(scheme.format).decompress(
        own | {"weight_scale": own["weight_scale"].float()}, scheme
    )
    weight, off = whole[f"{name}.weight"].float(), None
    off = (back["weight"].float() - weight).abs()
    bound = own["weight_scale"].float() * 1.01 if bits else weight.abs() / 15 + own["weight_scale"].float() / 256
    within = weight.abs() <= own["weight_scale"].float() * (2 ** (bits - 1) - 1) if bits else torch.ones_like(weight).bool()
    assert bool((off <= bound)[within].all())
    assert float(within.float().mean()) > 0.95


@pytest.mark.long
def test_groups_follow_the_widths_and_notes_say_so(tmp_path):
    source = exported.write_llama(tmp_path / "odd", hidden_size=96, intermediate_size=80, num_attention_heads=2)
    row = _of(tmp_path / "out", source, "w4a16")
    assert row.status == "ok", row.reason
    assert "matrices whose inputs are no multiple of 128 have smaller groups: 12 of groups of 32" in row.notes
    assert "2 of 14 matrices are not quantised: their inputs are no multiple of 32" in row.notes
    stored = load_file(tmp_path / "out" / "compressed-tensors" / "model.safetensors")
    assert "model.layers.0.mlp.down_proj.weight" in stored
    assert stored["model.layers.0.mlp.up_proj.weight_scale"].shape == (80, 3)


@pytest.mark.long
def test_two_sizes_of_groups_load_as_one_model(tmp_path):
    source = exported.write_llama(tmp_path / "two", hidden_size=64, intermediate_size=128)
    row = _of(tmp_path / "out", source, "w4a16")
    assert row.status == "ok", row.reason
    said = json.loads((tmp_path / "out" / "compressed-tensors" / "config.json").read_text())["quantization_config"]
    sizes = {group["weights"]["group_size"]: len(group["targets"]) for group in said["config_groups"].values()}
    assert sizes == {64: 12, 128: 2}


@pytest.mark.long
def test_a_checkpoint_of_several_files_has_an_index(llama, tmp_path):
    from transformers import AutoModelForCausalLM

    sharded = tmp_path / "sharded"
    shutil.copytree(llama, sharded)
    (sharded / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(llama, dtype="auto").save_pretrained(sharded, max_shard_size="50KB")
    row = _of(tmp_path / "out", sharded, "int8")
    assert row.status == "ok", row.reason
    out = tmp_path / "out" / "compressed-tensors"
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == {name for path in out.glob("*.safetensors") for name in load_file(path)}


@pytest.mark.long
def test_an_encoder_keeps_its_head(tmp_path):
    exported.write_bert(tmp_path)
    asked = exported.asked(tmp_path, "text-classification", formats=["safetensors", "compressed-tensors"])
    (row,) = export_all(asked)
    assert row.status == "ok", row.reason
    said = json.loads((tmp_path / "compressed-tensors" / "config.json").read_text())["quantization_config"]
    assert said["ignore"] == ["bert.pooler.dense", "classifier"]


def test_widths_in_words_of_ours_are_proven_by_the_weights_that_are_read_back(llama, tmp_path):
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    asked = exported.asked(tmp_path, formats=["safetensors", "compressed-tensors"])
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "nemotron-nas", "coppice": {"linears": {}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    before = {name: value.clone() for name, value in asked.pruned.model.state_dict().items()}
    (row,) = export_all(asked)
    assert row.status == "ok", row.reason
    assert 0 < row.max_difference < 0.2
    assert any("transformers does not load it" in note for note in row.notes)
    assert all(torch.equal(value, before[name]) for name, value in asked.pruned.model.state_dict().items())
    said = json.loads((tmp_path / "compressed-tensors" / "config.json").read_text())
    assert (said["model_type"], said["quantization_config"]["quant_method"]) == ("nemotron-nas", "compressed-tensors")


def test_a_package_that_is_not_installed_is_named_with_how_to_install_it(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(quantised.importlib.util, "find_spec", lambda name: None)
    row = _of(tmp_path, llama, "int8")
    assert (row.status, row.reason) == ("failed", quantised.INSTALL)
    assert not (tmp_path / "compressed-tensors").exists()


def test_widths_in_the_place_of_scales_are_refused(llama, tmp_path):
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    asked = exported.asked(tmp_path, formats=["safetensors", "compressed-tensors"])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "coppice"}}))
    (row,) = export_all(asked)
    assert row.status == "failed"
    assert "take layout stock or serve" in row.reason
    assert not (tmp_path / "compressed-tensors").exists()


@pytest.mark.long
def test_what_transformers_cannot_load_is_deleted_and_said(llama, tmp_path, monkeypatch):
    """As a spoilt file would be: a scale is missing."""
    whole = quantised._quantised

    def lacking(name, weight, scheme):
        return (
            (own, tensor) for own, tensor in whole(name, weight, scheme) if "layers.1.mlp.down_proj.weight_scale" not in own
        )

    monkeypatch.setattr(quantised, "_quantised", lacking)
    row = _of(tmp_path, llama, "int8")
    assert row.status == "failed"
    assert row.reason.startswith("transformers ")
    assert not (tmp_path / "compressed-tensors").exists()


def test_values_that_come_back_wrong_are_refused(llama, tmp_path, monkeypatch):
    from compressed_tensors.compressors import BaseCompressor

    codec = BaseCompressor.get_value_from_registry("int-quantized")
    whole = codec.compress.__func__

    def spoilt(cls, state, scheme):
        found = whole(cls, state, scheme)
        return found | {"weight": found["weight"].roll(1, 0)}

    monkeypatch.setattr(codec, "compress", classmethod(spoilt))
    row = _of(tmp_path, llama, "int8")
    assert row.status == "failed"
    assert "come back further off than rounding explains" in row.reason
    assert not (tmp_path / "compressed-tensors").exists()


def test_layout_per_layer_is_refused_at_submit(tmp_path):
    spec = tiny.tiny_spec(tmp_path, tmp_path, artifacts={"formats": ["safetensors", "compressed-tensors"]})
    with pytest.raises(UnsupportedArchitecture, match="take layout stock or serve") as refused:
        check_request(spec)
    assert refused.value.param == "artifacts.layout"


_SERVE = """
import sys
if __name__ == "__main__":
    from vllm import LLM, SamplingParams
    model = LLM(sys.argv[1], max_model_len=48, enforce_eager=True, dtype="bfloat16", skip_tokenizer_init=True)
    told = model.generate({"prompt_token_ids": [2, 7, 9, 11]}, SamplingParams(temperature=0, max_tokens=4, detokenize=False))
    print("TOLD", list(told[0].outputs[0].token_ids))
"""


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["int8", "w4a16"])
def test_vllm_serves_it(kind, tmp_path):
    python = Path(os.environ.get("COPPICE_ENGINES_DIR", ".venv/engines")).absolute() / "vllm" / "bin" / "python"
    if not python.exists():
        pytest.skip("vLLM's environment is not installed: make engines")
    from transformers import AutoModelForCausalLM

    source = exported.write_llama(tmp_path / "llama", num_attention_heads=2, head_dim=32)
    assert _of(tmp_path / "out", source, kind).status == "ok"
    out = tmp_path / "out" / "compressed-tensors"
    (tmp_path / "serve.py").write_text(_SERVE)
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [python, tmp_path / "serve.py", out],
        check=False,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    served = json.loads(done.stdout.rpartition("TOLD ")[2].splitlines()[0])
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16).eval()
    ids = torch.tensor([[2, 7, 9, 11]])
    stock = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)[0, 4:].tolist()
    assert served[0] == stock[0]
