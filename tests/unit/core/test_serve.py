"""The layout for serving: widths that the engines can hold, and a config.json that stock libraries read or refuse by name."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pruning_core.arch.unit_costs import unit_group
from pruning_core.artifacts.configuration import ffn_mult
from pruning_core.budgets import Budget, CurveBudget
from pruning_core.checks.prediction import predict
from pruning_core.checks.request import check_local_inputs
from pruning_core.engines.limits import ENGINES, Limits, limits_of, reason_against
from pruning_core.errors import TargetUnreachable, UnsupportedArchitecture
from pruning_core.plugin.words import plain_config
from pruning_core.run.pipeline import run
from pruning_core.search.allowed import search_allowed
from pruning_core.spec.artifacts import ArtifactSpec
from pruning_core.spec.engines import ENGINE_TITLES
from tests import tiny

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


def write_llama(folder: Path, **sizes: object) -> Path:
    import transformers

    stated = {
        "vocab_size": len(tiny.SPECIAL + tiny.WORDS),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": 3,
        "bos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    }
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(stated | sizes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.1 if "embed" in name else 0.2)
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


def spec_of(model: Path, data: Path, engines: list[str], *, keep: float = 0.7, **changes: object):
    task = {"type": "text-generation", "columns": {"text": ["text"]}, "metric": "perplexity"}
    target = {"metric": "macs", "keep": keep, "tolerance": 0.1}
    artifacts = {"layout": "serve", "engines": engines}
    return tiny.tiny_spec(model, data, **{"task": task, "target": target, "artifacts": artifacts, **changes})


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_jsonl(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def served(llama: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("served") / "bundle"
    run(spec_of(llama, texts, ["vllm"]), out, device="cpu")
    return out


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_every_engine_has_a_title_and_serving_ones_have_limits():
    assert ENGINES.keys() <= ENGINE_TITLES.keys()
    assert reason_against("openvino", LLAMA) == "it reads other files than the layout serve has"


@pytest.mark.long
def test_widths_are_what_the_engines_hold_and_attention_stays(served: Path):
    config = config_of(served)
    assert config["model_type"] == "nemotron-nas"
    assert config["architectures"] == ["DeciLMForCausalLM"]
    assert "quantization_config" not in config, "vLLM would look for that library"
    widths = [block["ffn"]["intermediate_size"] for block in config["block_configs"]]
    assert all(width % 64 == 0 for width in widths)
    assert min(widths) < 256
    assert {block["attention"]["num_key_value_heads"] for block in config["block_configs"]} == {2}
    report = json.loads((served / "report.json").read_text())
    assert [layer["kept_neurons"] for layer in report["layers"]] == widths
    assert {layer["kept_heads"] for layer in report["layers"]} == {2}
    narrower = {str(layer): {"intermediate_size": width} for layer, width in enumerate(widths) if width != 256}
    assert config["per_layer_config"] == narrower


_LOAD = """
import sys
from transformers import {auto_class} as Model
model = Model.from_pretrained(sys.argv[1]{options})
print(model.config.model_type, sum(p.numel() for p in model.parameters()))
"""


def alone(folder: Path, options: str = "", auto_class: str = "AutoModelForCausalLM") -> subprocess.CompletedProcess[str]:
    # -I: neither the working directory nor the environment can smuggle pruning_core in.
    code = "import sys\nsys.modules['pruning_core'] = None\n" + _LOAD.format(options=options, auto_class=auto_class)
    return subprocess.run(
        [sys.executable, "-I", "-c", code, str(folder)], capture_output=True, text=True, check=False, input=""
    )


@pytest.mark.slow
@pytest.mark.long
def test_stock_transformers_asks_for_trust_by_name_or_loads(served: Path):
    refused = alone(served)
    assert refused.returncode != 0
    assert "trust_remote_code=True" in refused.stderr
    assert "ignore_mismatched_sizes" not in refused.stderr + refused.stdout
    trusted = alone(served, ", trust_remote_code=True")
    assert trusted.returncode == 0, trusted.stderr[-2000:]
    assert "mismatch" not in trusted.stderr.lower()
    name, parameters = trusted.stdout.split()
    assert (name, int(parameters)) == ("llama", json.loads((served / "report.json").read_text())["parameters"]["pruned"])


def test_a_loaded_configuration_is_copied_pickled_and_saved_in_the_same_words(served: Path, tmp_path: Path):
    import transformers

    config = transformers.AutoConfig.from_pretrained(served)
    assert (config.model_type, type(config).__name__) == ("llama", "LlamaConfig")
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other.to_dict() == config.to_dict()
    model = transformers.AutoModelForCausalLM.from_pretrained(served)
    model.save_pretrained(tmp_path / "again")
    words = ("model_type", "base_model_type", "block_configs", "per_layer_config", "coppice", "architectures")
    assert [config_of(tmp_path / "again").get(name) for name in words] == [config_of(served).get(name) for name in words]
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_class_that_is_used_by_name_reads_a_bundle_as_the_auto_classes_do(served: Path, tmp_path: Path, caplog):
    import transformers

    auto = transformers.AutoModelForCausalLM.from_pretrained(served)
    with caplog.at_level("WARNING", "transformers"):
        named = transformers.LlamaForCausalLM.from_pretrained(served)
    assert not caplog.records, "neither a warning of another type nor one of layers filled at random"
    assert named.config.to_dict() == auto.config.to_dict()
    assert all(torch.equal(a, b) for a, b in zip(auto.parameters(), named.parameters(), strict=True))
    named.save_pretrained(tmp_path / "again")
    assert config_of(tmp_path / "again")["model_type"] == config_of(served)["model_type"]
    assert "bundle_words" not in transformers.MistralConfig.from_pretrained(served).to_dict()


@pytest.mark.long
def test_without_coppice_a_class_that_is_used_by_name_loads_nothing_wrong(served: Path):
    refused = alone(served, auto_class="LlamaForCausalLM")
    assert refused.returncode != 0
    assert "'intermediate_size' is a per-layer attribute" in refused.stderr
    assert "ignore_mismatched_sizes" not in refused.stderr + refused.stdout


@pytest.mark.long
def test_a_served_bundle_is_pruned_again(served: Path, texts: Path, tmp_path: Path):
    report = run(spec_of(served, texts, ["vllm"], keep=0.8), tmp_path / "out", device="cpu")
    assert report.parameters.dense == json.loads((served / "report.json").read_text())["parameters"]["pruned"]
    assert plain_config(config_of(tmp_path / "out"))["model_type"] == "llama"


@pytest.mark.long
def test_engines_that_take_them_get_fewer_heads(texts: Path, tmp_path: Path):
    model = write_llama(tmp_path / "model", num_attention_heads=4, num_key_value_heads=4, intermediate_size=64)
    run(spec_of(model, texts, ["llama.cpp"], keep=0.4), tmp_path / "out", device="cpu")
    config = config_of(tmp_path / "out")
    assert (config["model_type"], config["architectures"]) == ("coppice", ["CoppiceForCausalLM"])
    assert min(block["attention"]["num_key_value_heads"] for block in config["block_configs"]) < 4
    assert all(block["ffn"]["intermediate_size"] % 32 == 0 for block in config["block_configs"])


@pytest.mark.long
def test_what_mlx_reads_gives_the_widths(texts: Path, tmp_path: Path):
    model = write_llama(tmp_path / "model", intermediate_size=768, num_hidden_layers=4)
    run(spec_of(model, texts, ["vllm", "mlx"]), tmp_path / "out", device="cpu")
    config = config_of(tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for block, layer in zip(config["block_configs"], report["layers"], strict=True):
        assert block["attention"] == {"no_op": False, "n_heads_in_group": 2}, "MLX takes no other entries"
        assert block["ffn"].keys() == {"no_op", "ffn_mult"}
        raw = int(2 * block["ffn"]["ffn_mult"] * 64 / 3)
        assert -(-raw // 256) * 256 == layer["kept_neurons"]


@pytest.mark.parametrize("hidden", [64, 576, 896, 2048, 4096, 5120])
def test_shares_of_the_hidden_size_stand_for_each_width(hidden: int):
    for width in range(256, 8 * hidden, 256):
        assert -(-int(2 * ffn_mult(width, hidden) * hidden / 3) // 256) * 256 == width


def groups():
    heads = unit_group(0, "head", units=4, unit_width=8, hidden=32, inputs=[])
    neurons = unit_group(0, "neuron", units=64, unit_width=1, hidden=32, inputs=[])
    return (heads, neurons)


def test_searches_take_allowed_widths_alone():
    importance = [torch.ones(4), torch.arange(64.0)]
    limits = Limits(16, whole_attention=True)
    mask = search_allowed(importance, groups(), Budget((8.0, 1.0), 32 + 40, 1.0), limits)
    assert mask.counts() == [4, 32]
    assert mask.indices(1).tolist() == list(range(32, 64)), "the most important"
    curves = (((1, 1.0), (4, 4.0)), ((0, 0.0), (16, 1.0), (20, 1.5), (64, 9.0)))
    assert search_allowed(importance, groups(), CurveBudget(curves, 6.0), limits).counts() == [4, 16]
    with pytest.raises(TargetUnreachable):
        search_allowed(importance, groups(), Budget((8.0, 1.0), 40.0, 1.0), limits)


@pytest.mark.parametrize(
    ("engine", "change", "says"),
    [
        ("vllm", {"model_type": "qwen3"}, "llama, mistral, qwen2 alone, and this is a qwen3"),
        ("llama.cpp", {"hidden_act": "gelu"}, "gelu"),
        ("llama.cpp", {"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ("vllm", {"model_type": "mistral", "sliding_window": 4096}, "a window of tokens"),
        ("mlx", {"head_dim": 32}, "these are 32 wide"),
        ("mlx", {"model_type": "qwen2"}, "the output has none"),
        ("mlx", {"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ("vllm", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "turns a part"),
    ],
)
def test_models_that_an_engine_cannot_hold_have_a_reason(engine: str, change: dict, says: str):
    assert reason_against(engine, LLAMA) is None
    assert says in (reason_against(engine, LLAMA | change) or "")


def test_limits_are_those_of_all_engines_that_can_hold_the_model():
    def of(engines: list[str], config=LLAMA, **more) -> Limits | None:
        return limits_of(ArtifactSpec.model_validate({"layout": "serve", "engines": engines, **more}), config)

    assert of(["llama.cpp"]) == Limits(32, whole_attention=False)
    assert of(["llama.cpp", "vllm"]) == Limits(64, whole_attention=True)
    assert of(["mlx", "vllm"]) == Limits(256, whole_attention=True)
    assert of(["mlx", "llama.cpp"], LLAMA | {"head_dim": 32}) == Limits(32, whole_attention=False)
    kinds = {"formats": ["safetensors", "gguf"], "gguf": ["Q4_K_M"]}
    assert of(["llama.cpp"], **kinds) == Limits(256, whole_attention=False)
    assert limits_of(ArtifactSpec(), LLAMA) is None


def test_what_cannot_work_is_refused_at_submit(llama: Path, texts: Path, tiny_bert: Path, tiny_sst2: Path):
    with pytest.raises(UnsupportedArchitecture, match="multiples of 256, and layer 1 of the dense model is 64 wide"):
        check_local_inputs(spec_of(write_llama(texts.parent / "narrow", intermediate_size=64), texts, ["mlx"]))
    with pytest.raises(UnsupportedArchitecture, match="vLLM: it takes layers that differ of llama, mistral, qwen2 alone"):
        check_local_inputs(tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts={"layout": "serve", "engines": ["vllm"]}))
    with pytest.raises(TargetUnreachable, match=r"attention stays whole for them"):
        check_local_inputs(spec_of(llama, texts, ["vllm"], keep=0.25))
    exact = {"metric": "macs", "keep": 0.7, "tolerance": 0.01}
    with pytest.raises(TargetUnreachable, match=r"FFN widths go in steps of 64 for these engines, 0.0\d+ of the model each"):
        check_local_inputs(spec_of(llama, texts, ["vllm"], target=exact))
    with pytest.raises(ValueError, match="layout serve follows the engines that are asked for"):
        ArtifactSpec(layout="serve")
    said = predict(spec_of(write_llama(texts.parent / "wide", head_dim=32), texts, ["vllm", "mlx"]))
    assert said is not None
    assert [
        own
        for own in said.warnings
        if own.startswith("MLX cannot hold the model: it takes heads of hidden_size / num_attention_heads")
    ]


@pytest.mark.parametrize(
    ("artifacts", "says"),
    [
        (
            {"engines": ["vllm"]},
            ["vLLM takes layers that differ in the layout serve alone, and this bundle's layout is per_layer"],
        ),
        (
            {"engines": ["mlx"]},
            ["MLX takes layers that differ in the layout serve alone, and this bundle's layout is per_layer"],
        ),
        (
            {"engines": ["llama.cpp", "vllm"], "layout": "serve"},
            ["llama.cpp does not run the bundle: there is no gguf file: add gguf to artifacts.formats"],
        ),
        (
            {"engines": ["openvino", "onnxruntime"]},
            [
                "OpenVINO does not run the bundle: there is no openvino file: add openvino to artifacts.formats",
                "ONNX Runtime does not run the bundle: there is no ONNX graph: add onnx to artifacts.formats",
            ],
        ),
        (
            {"engines": ["sentence-transformers"]},
            ["sentence-transformers is not run here for models of text-generation"],
        ),
        (
            {
                "engines": ["transformers", "llama.cpp", "openvino", "onnxruntime"],
                "formats": ["safetensors", "gguf", "openvino", "onnx"],
            },
            [],
        ),
    ],
)
def test_an_engine_that_will_not_run_the_bundle_is_told_before_any_work(
    artifacts: dict, says: list[str], llama: Path, texts: Path
):
    said = predict(spec_of(llama, texts, [], artifacts=artifacts))
    assert said is not None
    titles = tuple(ENGINE_TITLES.values())
    assert [own for own in said.warnings if own.startswith(titles)] == says
