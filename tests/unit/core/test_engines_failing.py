"""Engines that can not do it, real ones where they are libraries of ours: a row with the reason each, and a bundle."""

from __future__ import annotations

import shutil

import pytest
import torch

from pruning_core.artifacts.engines.prover import Checkpoint, EngineProver
from pruning_core.artifacts.onnx import ONNX_PATH, export_onnx
from pruning_core.data.read import read_rows
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from tests import tiny
from tests.engines import write_interpreter, write_llama, write_texts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a dense Llama and texts."""
    folder = tmp_path_factory.mktemp("failing")
    write_llama(folder / "dense")
    write_texts(folder / "texts")
    return folder


def spec_of(model, texts, **artifacts):
    return PruneSpec.model_validate(
        {
            "model": str(model),
            "task": {"type": "text-generation", "columns": {"text": ["text"]}, "dataset": str(texts), "metric": "loss"},
            "target": {"metric": "macs", "keep": 0.75, "tolerance": 0.1},
            "calibration": {"samples": 32, "max_length": 32, "batch_tokens": 256},
            "evaluation": {"max_length": 32},
            "latency": {"batch": 2, "length": 16, "repeats": 3},
            "artifacts": artifacts,
        }
    )


def prover_of(place, engine, folder=None, **changes):
    spec = spec_of(place / "dense", place / "texts", engines=[engine])
    model = load_task_model(place / "dense", "text-generation", CPU)
    options = {"trust_remote_code": False, "limit_s": 120.0, "folder": folder} | changes
    return EngineProver(spec, model, read_rows(spec.task, "validation"), (), **options)


@pytest.mark.long
def test_a_library_that_does_not_know_the_architecture_is_a_row(place, tmp_path):
    out = tmp_path / "out"
    run(spec_of(place / "dense", place / "texts", layout="serve", engines=["transformers"]), out, device="cpu")
    (row,) = prover_of(place, "transformers").prove(Checkpoint(out))  # without trust in the bundle's own loader
    assert row.status == "failed"
    assert row.reason.startswith(f"transformers {row.version} does not know the architecture (")
    assert "contains custom code which must be executed" in row.reason
    assert str(tmp_path) not in row.reason


@pytest.mark.long
def test_a_graph_of_another_model_gives_other_tokens(place, tmp_path):
    other = write_llama(tmp_path / "other", seed=1)
    export_onnx(load_task_model(other, "text-generation", CPU), other)
    bundle = shutil.copytree(place / "dense", tmp_path / "bundle")
    shutil.copytree((other / ONNX_PATH).parent, (bundle / ONNX_PATH).parent)
    (row,) = prover_of(place, "onnxruntime").prove(Checkpoint(bundle, onnx=ONNX_PATH))
    assert row.status == "failed"
    assert row.reason.startswith("ONNX Runtime gives another most likely token than transformers at ")
    assert row.agreement < 0.5


@pytest.mark.long
def test_an_engine_that_breaks_off_while_it_is_timed_keeps_its_row(place, tmp_path):
    body = """
asked = json.loads(pathlib.Path(request).read_text())
asked["timing"]["turns"] = 0
pathlib.Path(request).write_text(json.dumps(asked))
assert subprocess.Popen([*REAL, str(os.getpid()), stage]).wait() == 0
found = json.loads(pathlib.Path(result).read_text())
del found["speeds"]
pathlib.Path(result).write_text(json.dumps(found))
pathlib.Path(stage).write_text("time")
os.kill(os.getpid(), 11)
"""
    (row,) = prover_of(place, "vllm", write_interpreter(tmp_path, "vllm", body)).prove(Checkpoint(place / "dense"))
    assert (row.status, row.agreement, row.pruned) == ("ok", 1, None)
    assert any("its speed was not measured to the end: it ended with exit code -11" in note for note in row.notes)


def test_an_engine_that_is_ended_by_a_fault_is_a_row(place, tmp_path):
    body = 'pathlib.Path(stage).write_text("run")\nos.kill(os.getpid(), 11)\n'
    (row,) = prover_of(place, "vllm", write_interpreter(tmp_path, "vllm", body)).prove(Checkpoint(place / "dense"))
    assert row.status == "failed"
    assert row.reason == "vLLM crashed while it ran the checkpoint: its process was ended by SIGSEGV"


@pytest.mark.long
def test_norms_of_queries_and_keys_are_refused_for_llama_cpp_and_the_bundle_is_there(place, tmp_path):
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(tiny.SPECIAL + tiny.WORDS),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    transformers.Qwen3ForCausalLM(config).save_pretrained(tmp_path / "qwen3")
    tiny.write_tokenizer(tmp_path / "qwen3")
    engines = ["llama.cpp", "vllm", "transformers"]
    spec = spec_of(tmp_path / "qwen3", place / "texts", engines=engines, formats=["safetensors", "gguf"])
    report = run(spec, tmp_path / "out", device="cpu", engines=tmp_path / "none")
    assert [(row.engine, row.status) for row in report.engines] == [
        ("llama.cpp", "refused"),
        ("vllm", "refused"),
        ("transformers", "ok"),
    ]
    assert "norms of queries and keys (QK-norm)" in report.engines[0].reason
    assert "layers that differ in the layout serve alone" in report.engines[1].reason
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert any("not run in llama.cpp" in warning for warning in report.warnings)


@pytest.mark.long
def test_what_one_engine_can_not_hold_leaves_the_others_their_bundle(place, tmp_path):
    # Heads of 32 on a width of 64 with two of them per key-value head: MLX wants hidden / heads, which is another width.
    model = write_llama(tmp_path / "model", keys=2)
    spec = spec_of(model, place / "texts", layout="serve", engines=["mlx", "transformers"])
    report = run(spec, tmp_path / "out", device="cpu", engines=tmp_path / "none")
    assert [(row.engine, row.status) for row in report.engines] == [("mlx", "refused"), ("transformers", "ok")]
    assert "it takes heads of hidden_size / num_attention_heads, and these are 32 wide" in report.engines[0].reason
