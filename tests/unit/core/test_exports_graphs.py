"""Graphs for runtimes without PyTorch: ONNX of several kinds and OpenVINO's form, of small models that are made here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pruning_core.artifacts.exports import onnx_kinds, openvino
from pruning_core.artifacts.exports import registry as exports
from pruning_core.artifacts.exports.registry import export_all
from pruning_core.artifacts.loading import snippets
from pruning_core.artifacts.onnx import ONNX_PATH, export_onnx
from pruning_core.artifacts.onnx_graph import store_, widen_
from pruning_core.checks.method import check_request
from pruning_core.errors import Unloadable, UnsupportedArchitecture
from pruning_core.report.engines import ExportReport
from pruning_core.report.report import OnnxReport
from pruning_core.run.pipeline import run
from pruning_core.run.verdict import accepted
from pruning_core.spec.artifacts import ArtifactSpec
from pruning_core.spec.prune import PruneSpec
from tests import exported, tiny

onnx_ir = pytest.importorskip("onnx_ir", reason="not installed: pip install 'coppice-prune[onnx]'")


def _run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})[0]


def _feed(asked) -> dict[str, np.ndarray]:
    batch = asked.pruned.family.probe_inputs(asked.pruned, asked.probes[0].texts, 16)
    return {name: value.numpy() for name, value in batch.inputs.items()}


def _types(path: Path) -> set[str]:
    initializers = onnx_ir.load(path).graph.initializers.values()
    return {str(own.const_value.dtype) for own in initializers if own.const_value.size >= 1024}


@pytest.mark.parametrize(("dtype", "stored"), [("float32", "FLOAT"), ("float16", "FLOAT16"), ("bfloat16", "BFLOAT16")])
@pytest.mark.long
def test_a_graph_has_its_weights_in_the_type_of_the_checkpoint_and_computes_the_same(dtype, stored, tmp_path):
    asked = exported.asked(exported.write_bert(tmp_path, dtype=dtype), "text-classification")
    export_onnx(asked.pruned, tmp_path)
    assert _types(tmp_path / ONNX_PATH) == {stored}
    feed = _feed(asked)
    with torch.inference_mode():
        ours = asked.pruned.outputs({name: torch.from_numpy(value) for name, value in feed.items()}).numpy()
    assert np.abs(_run(tmp_path / ONNX_PATH, feed) - ours).max() < 1e-4 * np.abs(ours).max()
    assert asked.pruned.model.config._attn_implementation == "sdpa"


@pytest.mark.long
def test_weights_that_a_type_cannot_hold_stay_and_widening_undoes_it(tmp_path):
    asked = exported.asked(exported.write_bert(tmp_path), "text-classification")
    export_onnx(asked.pruned, tmp_path)
    feed, path = _feed(asked), tmp_path / ONNX_PATH
    before, model = _run(path, feed), onnx_ir.load(path)
    store_(model.graph, "float16", exact=True)
    assert {str(own.const_value.dtype) for own in model.graph.initializers.values() if own.const_value.size >= 1024} == {
        "FLOAT"
    }
    store_(model.graph, "float16", exact=False)
    widen_(model.graph)
    onnx_ir.save(model, tmp_path / "widened.onnx")
    assert _types(tmp_path / "widened.onnx") == {"FLOAT"}
    after = _run(tmp_path / "widened.onnx", feed)
    assert 0 < np.abs(after - before).max() < 1e-2 * np.abs(before).max()


@pytest.mark.long
def test_further_kinds_are_files_with_their_proof(tmp_path):
    asked = exported.asked(
        exported.write_bert(tmp_path),
        "text-classification",
        formats=["safetensors", "onnx"],
        onnx=["stored", "float16", "int8"],
    )
    export_onnx(asked.pruned, tmp_path)
    half, quarter = export_all(asked)
    whole = (tmp_path / ONNX_PATH).stat().st_size
    assert (half.status, half.kind, half.path) == ("ok", "float16", "onnx/model_fp16.onnx"), half.reason
    assert (quarter.status, quarter.kind, quarter.path) == ("ok", "int8", "onnx/model_int8.onnx"), quarter.reason
    assert half.bytes == (tmp_path / half.path).stat().st_size < 0.75 * whole
    assert quarter.bytes == (tmp_path / quarter.path).stat().st_size < whole
    assert 0 < half.max_difference < 1e-2
    assert half.max_difference < quarter.max_difference < 0.5
    assert half.latency_ms > 0
    feed = _feed(asked)
    own = _run(tmp_path / quarter.path, feed)
    assert np.abs(own - _run(tmp_path / ONNX_PATH, feed)).max() > 0


@pytest.mark.long
def test_a_checkpoint_of_float16_has_that_kind_already(tmp_path):
    asked = exported.asked(
        exported.write_bert(tmp_path, dtype="float16"),
        "text-classification",
        formats=["safetensors", "onnx"],
        onnx=["stored", "float16"],
    )
    export_onnx(asked.pruned, tmp_path)
    (row,) = export_all(asked)
    assert (row.status, row.path) == ("ok", ONNX_PATH)
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model.onnx"]


def test_without_the_first_graph_there_is_no_other(tmp_path):
    options = {"formats": ["safetensors", "onnx"], "onnx": ["stored", "int8"]}
    (row,) = export_all(exported.asked(exported.write_bert(tmp_path), "text-classification", **options))
    assert (row.status, row.reason) == ("failed", "there is no ONNX graph to make it of")


def test_kinds_of_a_graph_that_does_not_prove_itself_fail_with_it(tmp_path):
    (tmp_path / "onnx").mkdir()
    row = ExportReport(format="onnx", kind="int8", status="ok", path="onnx/model_int8.onnx", bytes=1)
    other = ExportReport(format="openvino", kind="FP16", status="ok", path="openvino/model.xml", bytes=1)
    proof = SimpleNamespace(onnx=OnnxReport(status="failed", reason="no"), compressed=None, acceptance=None, problem=None)
    expected = SimpleNamespace(folder=tmp_path, onnx=True, compressed=None)
    measured = SimpleNamespace(outcome=lambda **parts: parts)
    candidate = SimpleNamespace(
        measured=measured, expected=expected, export_problem=None, compress_problem=None, exports=(row, other)
    )
    found = accepted(candidate, proof)["exports"]
    assert [own.status for own in found] == ["failed", "ok"]
    assert not (tmp_path / "onnx").exists()


def test_the_first_kind_is_always_asked_for():
    with pytest.raises(ValueError, match="onnx must include stored"):
        ArtifactSpec(formats=("safetensors", "onnx"), onnx=("int8",))
    assert ArtifactSpec().onnx == ("stored",)


@pytest.mark.long
def test_a_graph_with_too_large_a_difference_is_deleted(tmp_path, monkeypatch):
    options = {"formats": ["safetensors", "onnx"], "onnx": ["stored", "float16"]}
    asked = exported.asked(exported.write_bert(tmp_path), "text-classification", **options)
    export_onnx(asked.pruned, tmp_path)
    monkeypatch.setattr(onnx_kinds, "_TOLERANCE", 1e-9)
    (row,) = export_all(asked)
    assert row.status == "failed"
    assert row.reason.startswith("onnxruntime gives outputs that differ by")
    assert not (tmp_path / "onnx" / "model_fp16.onnx").exists()
    assert (tmp_path / ONNX_PATH).exists()


class TestOpenVino:
    """`openvino/`."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("openvino", reason="not installed: pip install 'coppice-prune[engines]'")

    @pytest.mark.parametrize("task", ["text-classification", "text-generation", "image-classification"])
    @pytest.mark.long
    def test_it_computes_what_the_checkpoint_computes(self, task, tmp_path):
        write = {
            "text-classification": exported.write_bert,
            "text-generation": exported.write_llama,
            "image-classification": exported.write_vit,
        }
        (row,) = export_all(exported.asked(write[task](tmp_path), task, formats=["safetensors", "openvino"]))
        assert (row.status, row.path, row.kind) == ("ok", "openvino/model.xml", "FP16"), row.reason
        assert row.max_difference < 1e-2
        assert row.latency_ms > 0
        assert {path.name for path in (tmp_path / "openvino").iterdir()} == {"model.xml", "model.bin"}
        weights = (tmp_path / "openvino" / "model.bin").stat().st_size
        assert weights < 1.1 * 2 * exported.asked(tmp_path, task).pruned.parameter_count()
        assert bool(row.notes) == (task == "text-generation")

    @pytest.mark.long
    def test_lengths_and_batches_are_free(self, tmp_path):
        import openvino as library

        asked = exported.asked(exported.write_bert(tmp_path), "text-classification", formats=["safetensors", "openvino"])
        (row,) = export_all(asked)
        compiled = library.compile_model(tmp_path / row.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for shape in ((1, 3), (5, 17)):
            ids = np.full(shape, 7)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            with torch.inference_mode():
                ours = asked.pruned.outputs({name: torch.from_numpy(value) for name, value in feed.items()}).numpy()
            theirs = compiled({entry.any_name: feed[entry.any_name] for entry in compiled.inputs})["logits"]
            assert np.abs(theirs - ours).max() < 1e-2 * np.abs(ours).max()

    def test_a_package_that_is_not_installed_is_named_with_how_to_install_it(self, tmp_path, monkeypatch):
        asked = exported.asked(exported.write_bert(tmp_path), "text-classification", formats=["safetensors", "openvino"])
        monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
        (row,) = export_all(asked)
        assert (row.status, row.reason) == ("failed", openvino.INSTALL)
        assert not (tmp_path / "openvino").exists()

    def test_what_openvino_cannot_convert_is_said_and_leaves_nothing(self, tmp_path, monkeypatch):
        asked = exported.asked(exported.write_bert(tmp_path), "text-classification", formats=["safetensors", "openvino"])
        inner = type(asked.pruned.model)

        def by_values(self, input_ids, **_inputs):
            return SimpleNamespace(logits=torch.zeros(int(input_ids.sum()), 2))

        monkeypatch.setattr(inner, "forward", by_values)
        (row,) = export_all(asked)
        assert row.status == "failed"
        assert row.reason.startswith("OpenVINO ")
        assert not (tmp_path / "openvino").exists()

    @pytest.mark.engine
    def test_openvino_of_an_environment_of_its_own_reads_it(self, tmp_path):
        python = Path(os.environ.get("COPPICE_ENGINES_DIR", ".venv/engines")).absolute() / "openvino" / "bin" / "python"
        if not python.exists():
            pytest.skip("OpenVINO's environment is not installed: make engines")
        asked = exported.asked(exported.write_bert(tmp_path), "text-classification", formats=["safetensors", "openvino"])
        (row,) = export_all(asked)
        code = (
            "import numpy as np, openvino, sys\n"
            "model = openvino.compile_model(sys.argv[1], 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
            "ids = np.full((2, 9), 7)\n"
            "found = model({own.any_name: np.ones_like(ids) if 'mask' in own.any_name else ids for own in model.inputs})\n"
            "np.save(sys.argv[2], found[0])\n"
        )
        settings = os.environ | {"PYTHONPATH": ""}
        subprocess.run([python, "-c", code, tmp_path / row.path, tmp_path / "o.npy"], env=settings, check=True, timeout=300)
        ids = torch.full((2, 9), 7)
        with torch.inference_mode():
            ours = asked.pruned.outputs({"input_ids": ids, "attention_mask": torch.ones_like(ids)}).numpy()
        assert np.abs(np.load(tmp_path / "o.npy") - ours).max() < 1e-2 * np.abs(ours).max()


def test_tasks_of_two_graphs_are_refused_at_submit(tmp_path):
    columns = {"text": ["text"], "label": "summary"}
    task = {"type": "summarization", "dataset": str(tmp_path), "columns": columns, "metric": "rougeL"}
    fields = {"model": str(tmp_path), "task": task, "sparsity": 0.5, "artifacts": {"formats": ["safetensors", "openvino"]}}
    with pytest.raises(UnsupportedArchitecture, match="leave openvino out"):
        check_request(PruneSpec.model_validate(fields))


@pytest.mark.parametrize("name", ["compressed-tensors", "openvino", "gguf"])
def test_what_is_made_of_all_weights_is_refused_where_they_are_to_be_paged(name, tmp_path):
    artifacts = {"formats": ["safetensors", name], "layout": "stock"}
    with pytest.raises(ValueError, match=f"leave {name} out of artifacts.formats"):
        tiny.tiny_spec(tmp_path, tmp_path, memory={"weights": "paged"}, artifacts=artifacts)


def test_every_exporter_is_a_format_and_can_be_imported():
    from typing import get_args

    from pruning_core.spec.artifacts import Format

    assert set(exports.EXPORTERS) <= set(get_args(Format))


@pytest.mark.long
def test_a_job_delivers_forms_with_rows_in_report_page_and_card(tiny_bert, tiny_sst2, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="not installed: pip install 'coppice-prune[engines]'")
    monkeypatch.setattr(openvino, "_TOLERANCE", -1.0)  # so that one of the forms fails
    artifacts = {"formats": ["safetensors", "onnx", "openvino"], "onnx": ["stored", "int8"]}
    report = run(tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts=artifacts), tmp_path / "out", device="cpu")
    assert report.onnx.status == "ok", report.onnx.reason
    rows = {(row.format, row.kind): row for row in report.exports}
    assert {name: row.status for name, row in rows.items()} == {("onnx", "int8"): "ok", ("openvino", "FP16"): "failed"}
    assert any(said.startswith("no openvino FP16: OpenVINO gives outputs that differ") for said in report.warnings)
    card, page = ((tmp_path / "out" / name).read_text() for name in ("README.md", "report.html"))
    assert "| bytes, onnx int8 (`onnx/model_int8.onnx`) |" in card
    assert 'InferenceSession("onnx/model_int8.onnx")' in card
    assert "<th>onnx int8</th>" in page
    assert "not delivered: OpenVINO gives outputs that differ" in page
    assert not (tmp_path / "out" / "openvino").exists()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert "onnx/model_int8.onnx" in manifest


@pytest.mark.long
def test_with_strict_a_form_that_is_not_there_fails_the_job(tiny_bert, tiny_sst2, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
    artifacts = {"formats": ["safetensors", "openvino"], "strict": True}
    with pytest.raises(Unloadable, match="openvino FP16 cannot be delivered: it is not installed") as refused:
        run(tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts=artifacts), tmp_path / "out", device="cpu")
    assert refused.value.param == "artifacts.formats"


@pytest.mark.parametrize(
    ("form", "kind", "path", "code"),
    [
        ("openvino", "FP16", "openvino/model.xml", 'openvino.compile_model("openvino/model.xml", "CPU")'),
        (
            "compressed-tensors",
            "int8",
            "compressed-tensors",
            'AutoModelForSequenceClassification.from_pretrained("compressed-tensors")',
        ),
        ("onnx", "int8", "onnx/model_int8.onnx", 'onnxruntime.InferenceSession("onnx/model_int8.onnx")'),
    ],
)
def test_loading_code_of_each_form_is_python(form, kind, path, code, tmp_path):
    spec = tiny.tiny_spec(tmp_path, tmp_path)
    row = ExportReport(format=form, kind=kind, status="ok", path=path)
    report = SimpleNamespace(
        layout="stock", latency_ms=SimpleNamespace(dtype="float32"), compressed=None, onnx=None, exports=(row,)
    )
    way = snippets(spec, report)[-1]
    compile(way.code, "<way>", "exec")
    assert code in way.code
