"""What the options of a bundle imply of each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coppice.cli import app
from coppice.commands.options import JobOptions


@pytest.mark.parametrize(
    ("options", "artifacts"),
    [
        ({"engines": ["vllm", "llama.cpp"]}, {"layout": "serve", "engines": ["vllm", "llama.cpp"]}),
        ({"engines": ["vllm"], "layout": "stock"}, {"layout": "stock", "engines": ["vllm"]}),
        ({"engines": ["openvino"], "formats": ["openvino"]}, {"engines": ["openvino"], "formats": ["safetensors", "openvino"]}),
        (
            {"engines": ["onnxruntime"], "strict": True},
            {"engines": ["onnxruntime"], "formats": ["safetensors", "onnx"], "strict": True},
        ),
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


@pytest.mark.parametrize(
    ("engine", "more", "artifacts"),
    [
        ("llama.cpp", {}, {"layout": "serve", "engines": ["llama.cpp"], "formats": ["safetensors", "gguf"]}),
        ("openvino", {}, {"engines": ["openvino"], "formats": ["safetensors", "openvino"]}),
        ("onnxruntime", {}, {"engines": ["onnxruntime"], "formats": ["safetensors", "onnx"]}),
        ("onnxruntime", {"task": "summarization"}, {"engines": ["onnxruntime"]}),
        ("vllm", {}, {"layout": "serve", "engines": ["vllm"]}),
    ],
)
def test_an_engine_implies_the_format_that_it_loads(engine: str, more: dict, artifacts: dict):
    given = {"model": "a/b", "task": "text-generation", "text": ["text"], "data": "a/c", "sparsity": [0.5], **more}
    if given["task"] == "summarization":
        given["label"] = "summary"
    spec = JobOptions(**given, engines=[engine]).to_spec()
    assert spec.artifacts.model_dump(mode="json", exclude_unset=True) == artifacts


@pytest.mark.parametrize(
    ("target", "options", "becomes"),
    [
        ({"metric": "macs", "keep": 0.5, "tolerance": 0.08}, {"macs_keep": [0.7]}, [(0.7, 0.08)]),
        ({"metric": "macs", "keep": 0.5, "tolerance": 0.08}, {"params_keep": [0.7]}, [(0.7, 0.01)]),
        ({"metric": "macs", "keep": 0.5, "tolerance": 0.08}, {"tolerance": 0.03}, [(0.5, 0.03)]),
        (
            {"metric": "macs", "keep": 0.5, "tolerance": 0.08},
            {"macs_keep": [0.7, 0.6], "tolerance": 0.03},
            [(0.7, 0.03), (0.6, 0.03)],
        ),
    ],
)
def test_a_tolerance_is_kept_or_replaced(target: dict, options: dict, becomes: list, tmp_path: Path):
    given = {"model": "a/b", "task": "glue/sst2", "data": "a/c", "target": target}
    (tmp_path / "spec.json").write_text(json.dumps(given))
    job = JobOptions(spec=tmp_path / "spec.json", **options)
    assert [(own.requested, own.tolerance) for own in job.to_spec().all_targets] == becomes
    assert job.worded("", "raise target.tolerance to 0.013 or more") == "raise --tolerance to 0.013 or more"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--quality-floor", "0.9", "--tolerance", "0.1"], "error: --tolerance: only with a target, such as --macs-keep"),
        (
            ["--bytes-at-most", "20MB", "--tolerance", "0.1"],
            "error: --tolerance: not with a target in bytes, which is met or missed",
        ),
        (
            ["--macs-keep", "0.7", "--layout", "serve"],
            "error: --layout serve follows the engines asked for: name them, such as --engine vllm",
        ),
        (
            ["--macs-keep", "0.7", "--gguf", "q8_0"],
            "error: --gguf must be 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_K_M', 'Q5_K_M' or 'Q6_K'; did you mean Q8_0?",
        ),
    ],
)
def test_what_is_wrong_is_said_once_and_by_options(options: list[str], says: str):
    done = CliRunner().invoke(app, ["check", "--model", "org/name", "--task", "glue/sst2", *options])
    assert (done.exit_code, " ".join(done.stderr.split())) == (2, says)


def test_check_tells_what_will_not_run_and_names_no_floor_that_was_not_asked_for(tiny_bert: Path, tiny_sst2: Path):
    given = ["check", "--model", str(tiny_bert), "--task", "glue/sst2", "--data", str(tiny_sst2)]
    timed = CliRunner().invoke(app, [*given, "--latency-keep", "0.7", "--latency-engine", "onnxruntime"])
    assert timed.exit_code == 0, timed.stderr
    assert "it would be accepted: a model of the size that the target is measured to take, " in timed.stdout
    assert "floor" not in timed.stdout
    floored = CliRunner().invoke(app, [*given, "--quality-floor", "0.9", "--engine", "llama.cpp", "--layout", "per_layer"])
    assert "it would be accepted: the smallest model that keeps the floor, " in floored.stdout
    assert "note: llama.cpp is not run here for models of text-classification" in floored.stderr


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.long
def test_engines_are_listed_within_the_width_and_a_folder_that_is_not_there_is_told(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COPPICE_ENGINES_DIR", str(tmp_path / "none"))
    command = [sys.executable, "-m", "coppice.cli", "engines"]
    done = subprocess.run(
        command, env=os.environ | {"COLUMNS": str(width)}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert f"COPPICE_ENGINES_DIR names {tmp_path / 'none'}, and there is no such folder" in " ".join(done.stderr.split())
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith(("vllm ", "mlx ", "openvino "))] == ["missing"] * 3
    assert max(len(line) for line in lines if "/" not in line) <= width
    assert "make engines, or: python -m venv mlx; mlx/bin/pip install mlx-lm" in " ".join(done.stdout.split())
