"""Real engines that can't do what they are asked, and llama.cpp and OpenVINO as engines of the proof; `make test-engines`."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from pruning_core.artifacts.engines.prover import Checkpoint, EngineProver
from pruning_core.data.read import read_rows
from pruning_core.engines.registry import Found, find
from pruning_core.models.load import load_task_model
from pruning_core.report.engines import ExportReport
from pruning_core.run.pipeline import run
from tests import gguf_models, tiny
from tests.engines import write_llama, write_texts
from tests.integration.test_engines import _here, _spec

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
GGUF = "gguf/model-F16.gguf"
_WRITTEN = (ExportReport(format="gguf", kind="F16", status="ok", path=GGUF),)


def _rows(tmp_path, engine, checkpoint):
    dense = write_llama(tmp_path / "proven")
    spec = _spec(dense, write_texts(tmp_path / "held"), engines=[engine])
    model = load_task_model(dense, "text-generation", torch.device("cpu"))
    return EngineProver(spec, model, read_rows(spec.task, "validation"), (), trust_remote_code=False, limit_s=600).prove(
        checkpoint
    )


def test_openvino_runs_an_encoder(tmp_path, tiny_bert, tiny_sst2):
    _here("openvino")
    artifacts = {"engines": ["openvino", "onnxruntime"], "formats": ["safetensors", "onnx", "openvino"]}
    report = run(tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts=artifacts), tmp_path / "out", device="cpu")
    assert [(row.engine, row.status, row.reason) for row in report.engines] == [
        ("openvino", "ok", None),
        ("onnxruntime", "ok", None),
    ]
    assert report.engines[0].dense.pass_ms > 0


def test_a_file_of_an_architecture_that_llama_cpp_does_not_know_is_a_row(tmp_path):
    gguf = pytest.importorskip("gguf")
    _here("llama.cpp")
    bundle = write_llama(tmp_path / "bundle")
    (bundle / "gguf").mkdir()
    writer = gguf.GGUFWriter(bundle / GGUF, "nosuch")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (row,) = _rows(tmp_path, "llama.cpp", Checkpoint(bundle, exports=_WRITTEN))
    assert row.status == "failed"
    assert row.reason.startswith(f"llama.cpp {row.version} does not know the architecture (")
    assert "unknown model architecture: 'nosuch'" in row.reason
    assert str(tmp_path) not in row.reason


def test_an_architecture_that_mlx_does_not_know_is_a_row(tmp_path):
    _here("mlx")
    bundle = write_llama(tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    prover_bundle = Checkpoint(bundle)
    found = find("mlx", tries=False)
    assert isinstance(found, Found)
    # The reference is computed from a model that transformers knows; what MLX is given is not.
    spec = _spec(bundle, write_texts(tmp_path / "held"), engines=["mlx"])
    model = load_task_model(bundle, "text-generation", torch.device("cpu"))
    prover = EngineProver(spec, model, read_rows(spec.task, "validation"), (), trust_remote_code=False, limit_s=600)
    inputs = prover._inputs(prover_bundle)
    (bundle / "config.json").write_text(json.dumps(config | {"model_type": "coppice"}))
    row = prover._run(found, prover_bundle, inputs)
    assert row.status == "failed"
    assert "does not know the architecture" in row.reason
    assert "coppice not supported" in row.reason


def test_llama_cpp_runs_widths_and_groups_of_their_own_as_an_engine_of_the_proof(tmp_path):
    _here("llama.cpp")
    config = transformers.LlamaConfig(**gguf_models.GROUPED | {"intermediate_size": 256, "num_key_value_heads": 4})
    dense = gguf_models.write(tmp_path / "dense", config, gguf_models.byte_tokenizer(None, digits=True), dtype="float32")
    artifacts = {"layout": "serve", "engines": ["llama.cpp"], "formats": ["safetensors", "gguf"]}
    report = run(_spec(dense, write_texts(tmp_path / "texts"), **artifacts), tmp_path / "out", device="cpu")
    (row,) = report.engines
    assert (row.status, row.reason, row.path) == ("ok", None, GGUF)
    assert row.notes == ("computed in float16", "loaded F16")
    assert row.max_difference <= row.tolerance
    assert row.dense.decode_tokens_s > 0
    assert row.pruned.prefill_tokens_s > 0
    # The dense model's file in its place: llama.cpp runs it, and gives other tokens.
    other = tmp_path / "other"
    gguf_models.write(other, config, gguf_models.byte_tokenizer(None, digits=True), dtype="float32")
    model = load_task_model(other, "text-generation", torch.device("cpu"))
    gguf_models.export(other, model, model, "F16")
    (tmp_path / "out" / GGUF).write_bytes((other / GGUF).read_bytes())
    spec = _spec(dense, tmp_path / "texts", engines=["llama.cpp"])
    prover = EngineProver(spec, model, read_rows(spec.task, "validation"), (), trust_remote_code=True, limit_s=600)
    (row,) = prover.prove(Checkpoint(tmp_path / "out", exports=_WRITTEN))
    assert row.status == "failed"
    assert "than transformers" in row.reason or "differ by" in row.reason
