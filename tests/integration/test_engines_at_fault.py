"""Real engines that can't do what they are asked, and llama.cpp and OpenVINO as engines of the proof; `make test-engines`."""

from __future__ import annotations

import json

import pytest
import torch

from pruning_core.artifacts.engines.prover import Checkpoint, EngineProver
from pruning_core.data.read import read_rows
from pruning_core.engines.registry import Found, find
from pruning_core.models.load import load_task_model
from pruning_core.report.engines import ExportReport
from pruning_core.run.pipeline import run
from tests import tiny
from tests.engines import write_llama, write_texts
from tests.integration.test_engines import _here, _spec

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]
GGUF = ("gguf/model-F16.gguf", "F16")


def _rows(tmp_path, engine, checkpoint):
    dense = write_llama(tmp_path / "proven")
    spec = _spec(dense, write_texts(tmp_path / "held"), engines=[engine])
    model = load_task_model(dense, "text-generation", torch.device("cpu"))
    return EngineProver(spec, model, read_rows(spec.task, "validation"), (), trust_remote_code=False, limit_s=600).prove(
        checkpoint
    )


def _written(folder):
    """Say that there is a GGUF file."""
    return (ExportReport(format="gguf", kind=GGUF[1], status="ok", path=GGUF[0]),)


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
    writer = gguf.GGUFWriter(bundle / GGUF[0], "nosuch")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (row,) = _rows(tmp_path, "llama.cpp", Checkpoint(bundle, exports=_written(bundle)))
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


def test_llama_cpp_runs_widths_of_their_own_and_tells_another_model_s_file(tmp_path):
    _here("llama.cpp")
    out = tmp_path / "out"
    spec = _spec(
        write_llama(tmp_path / "dense", width=256, keys=2),
        write_texts(tmp_path / "texts"),
        engines=["llama.cpp"],
        layout="serve",
        formats=["safetensors", "gguf"],
    )
    report = run(spec, out, device="cpu")
    reasons = [(row.engine, row.status, row.reason) for row in report.engines]
    why = [row.reason for row in report.exports]
    if report.engines[0].status != "ok":
        assert why[0] is not None, reasons
        assert why[0] in reasons[0][2]
        pytest.skip(f"no GGUF file of the tiny tokenizer: {why[0]}")
    assert report.engines[0].path == GGUF[0]
    assert report.engines[0].dense.decode_tokens_s > 0
