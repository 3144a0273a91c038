"""GGUF files as models that come in: read as they were written, and refused in a sentence where they are broken."""

from __future__ import annotations

import json
import shutil
import struct

import gguf
import pytest
import torch
import transformers

from pruning_core.checks.request import check_checkpoint, check_local_inputs
from pruning_core.errors import ModelUnreadable, UnsupportedArchitecture
from pruning_core.files.digests import model_digests, sha256_of
from pruning_core.files.gguf import TYPES, gguf_in, read_gguf
from pruning_core.models.opened import opened
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from tests import gguf_models as made
from tests import tiny
from tests.gguf_models import LLAMA, export, model_of


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a Llama's folder, and a folder with the GGUF file of the same model."""
    folder = tmp_path_factory.mktemp("gguf-in")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COPPICE_ENGINES_DIR", str(folder / "nothing"))
        dense = model_of(folder / "model", transformers.LlamaConfig(**made.GROUPED, **LLAMA), made.tokenizers()["pieces"])
        (row,) = export(folder / "out", dense, dense, "F16")
    (folder / "file").mkdir()
    shutil.copy(folder / "out" / row.path, folder / "file/tiny.gguf")
    return dense, folder / "file"


@pytest.fixture
def copy(source, tmp_path):
    shutil.copytree(source[1], tmp_path / "file")
    return tmp_path / "file"


def spec_of(model, data, **changes):
    fields = {
        "model": str(model),
        "task": {"type": "text-generation", "dataset": str(data), "columns": {"text": ["text"]}, "metric": "perplexity"},
        "target": {"metric": "macs", "keep": 0.7},
        "calibration": {"samples": 32, "max_length": 32, "batch_tokens": 512},
        "evaluation": {"max_length": 32},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
    }
    return PruneSpec.model_validate(fields | changes)


def test_types_are_those_of_the_library():
    known = {own.value: (own.name, *sizes) for own, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: known[number] for number in TYPES} == TYPES


def test_a_file_becomes_the_model_that_it_was_made_of(source, tmp_path):
    dense, folder = source

    came = opened(spec_of("/m", "/d"), folder, lambda _name: tmp_path)
    assert came.folder == tmp_path
    assert came.notes == ()
    found = transformers.AutoModelForCausalLM.from_pretrained(came.folder, dtype=torch.float32)
    wanted = dense.model.state_dict()
    for name, own in found.state_dict().items():
        torch.testing.assert_close(own, wanted[name], rtol=0.01, atol=1e-3)
    tokens = transformers.AutoTokenizer.from_pretrained(came.folder)
    for text in ("the cat and the dog 123", "a  b\n"):
        assert tokens(text)["input_ids"] == dense.tokenizer(text)["input_ids"]
    assert tokens.chat_template == dense.tokenizer.chat_template


def test_no_space_is_put_where_the_file_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("COPPICE_ENGINES_DIR", str(tmp_path / "nothing"))
    dense = model_of(tmp_path / "model", transformers.LlamaConfig(**made.GROUPED, **LLAMA), made.tokenizers()["gemma"])
    (row,) = export(tmp_path / "out", dense, dense, "F16")
    came = opened(spec_of("/m", "/d"), (tmp_path / "out" / row.path).parent, lambda _name: tmp_path)
    tokens = transformers.AutoTokenizer.from_pretrained(came.folder)
    for text in ("the cat and the dog 123", "a  b", " a"):
        assert tokens(text)["input_ids"] == dense.tokenizer(text)["input_ids"]


def test_a_run_prunes_it_and_names_the_file(source, tmp_path):
    _, folder = source
    report = run(spec_of(folder, tiny.write_jsonl(tmp_path / "data")), tmp_path / "out")
    assert report.reproduction is not None
    assert report.reproduction.model.sha256 == {"tiny.gguf": sha256_of(folder / "tiny.gguf")} == model_digests(folder)
    assert report.acceptance is not None
    assert json.loads((tmp_path / "out/config.json").read_text())["base_model_type"] == "llama"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".coppice")] == []


def test_a_submit_looks_at_the_header_and_says_what_it_cannot_know(source, tmp_path):
    found = check_local_inputs(spec_of(source[1], tiny.write_jsonl(tmp_path / "data")))
    assert any("once the job has converted the GGUF file" in said for said in found.findings.not_looked_at)
    check_checkpoint(source[1])


def test_a_quantised_file_says_that_it_was(copy):
    facts = read_gguf(copy / "tiny.gguf")
    assert not facts.is_quantised
    raw = (copy / "tiny.gguf").read_bytes()
    reader = gguf.GGUFReader(copy / "tiny.gguf")
    writer = gguf.GGUFWriter(copy / "small.gguf", "llama")
    for own in reader.tensors:
        values = gguf.dequantize(own.data, own.tensor_type)
        packed = own.shape[0] % 32 == 0 and len(own.shape) > 1
        kind = gguf.GGMLQuantizationType.Q8_0 if packed else gguf.GGMLQuantizationType.F32
        writer.add_tensor(own.name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    small = read_gguf(copy / "small.gguf")
    assert small.is_quantised
    assert small.types.startswith("Q8_0")
    assert small.end <= (copy / "small.gguf").stat().st_size < len(raw)


@pytest.mark.parametrize(
    ("cut", "message"),
    [(0, "cut off within its header"), (3, "cut off within its header"), (100, "cut off within its header"), (-1, "tells of")],
)
def test_a_file_that_is_cut_off_is_refused(copy, tmp_path, cut, message):
    path = copy / "tiny.gguf"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with pytest.raises(ModelUnreadable, match=message) as caught:
        check_local_inputs(spec_of(copy, tiny.write_jsonl(tmp_path / "data")))
    assert "fetch it again" in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"PK\x03\x04" + b"\0" * 40, "is no GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + b"\0" * 40, "version 1 of GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "counts 1,152,921,504,606,846,976"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "holds no model"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**50), "counts 1,125,899,906,842,624"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 9, 1) + b"\0" * 40, "type 9"),
    ],
)
def test_a_hostile_header_is_refused_in_a_sentence(copy, raw, message):
    (copy / "tiny.gguf").write_bytes(raw)
    with pytest.raises(ModelUnreadable, match=message):
        check_checkpoint(copy)


def test_several_files_are_refused_by_name(copy):
    shutil.copy(copy / "tiny.gguf", copy / "other.gguf")
    with pytest.raises(ModelUnreadable, match=r"2 GGUF files \(other.gguf, tiny.gguf\)"):
        gguf_in(copy)


def test_a_task_that_needs_a_head_is_refused(copy, tmp_path):
    with pytest.raises(ModelUnreadable, match="holds a model of text-generation, and the task is text-classification"):
        check_local_inputs(tiny.tiny_spec(copy, tiny.write_dataset(tmp_path / "data")))


def test_another_architecture_is_refused_by_name(copy):
    path = copy / "tiny.gguf"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(struct.pack("<Q", 5) + b"llama", struct.pack("<Q", 5) + b"mamba", 1))
    with pytest.raises(UnsupportedArchitecture, match="architecture 'mamba' are not converted here"):
        check_checkpoint(copy)


def test_a_checkpoint_with_a_gguf_beside_it_is_read_as_it_is(source, copy, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(source[0].source, model)
    shutil.copy(copy / "tiny.gguf", model)
    assert gguf_in(model) is None
    check_checkpoint(model)
