"""What the options of a bundle imply of each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coppice.commands.options import JobOptions


@pytest.mark.parametrize(
    ("options", "artifacts"),
    [
        ({"engines": ["vllm", "llama.cpp"]}, {"layout": "serve", "engines": ["vllm", "llama.cpp"]}),
        ({"engines": ["vllm"], "layout": "stock"}, {"layout": "stock", "engines": ["vllm"]}),
        ({"engines": ["openvino"], "formats": ["openvino"]}, {"engines": ["openvino"], "formats": ["safetensors", "openvino"]}),
        ({"gguf": ["Q8_0"]}, {"gguf": ["Q8_0"], "formats": ["safetensors", "gguf"]}),
        (
            {"quantization": "w4a16", "formats": ["onnx"]},
            {"quantization": "w4a16", "formats": ["safetensors", "onnx", "compressed-tensors"]},
        ),
    ],
)
def test_options_imply_layout_and_formats(options: dict, artifacts: dict, tmp_path: Path):
    given = {"model": "a/b", "task": "glue/sst2", "data": "a/c", "sparsity": 0.5}
    (tmp_path / "spec.json").write_text(json.dumps(given))
    spec = JobOptions(spec=tmp_path / "spec.json", **options).to_spec()
    stated = spec.artifacts.model_dump(mode="json", exclude_unset=True)
    assert stated == artifacts
    (tmp_path / "spec.json").write_text(
        json.dumps(given | {"artifacts": {"layout": "per_layer", "formats": ["safetensors", "onnx"]}})
    )
    again = JobOptions(spec=tmp_path / "spec.json", gguf=["F16"]).to_spec().artifacts
    assert (again.layout, again.formats) == ("per_layer", ("safetensors", "onnx", "gguf"))
