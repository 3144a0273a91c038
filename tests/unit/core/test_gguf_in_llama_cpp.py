"""GGUF files in llama.cpp, where it is installed: it computes what transformers does, and quantises as we do."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import transformers

from pruning_core.artifacts.engines.forms import Form, dense_form
from pruning_core.artifacts.exports.gguf import interpreter as engine
from pruning_core.artifacts.exports.gguf.write import TYPES
from pruning_core.engines.registry import FOLDER_VARIABLE, engines_folder
from pruning_core.spec.artifacts import ArtifactSpec
from tests import gguf_models as made
from tests.gguf_models import LLAMA, cut, export, model_of, read, uneven, without_attention

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(engine.interpreter() is None, reason="llama.cpp is not installed: make engines"),
]


@pytest.fixture(scope="module")
def tokenizers():
    return made.tokenizers()


ROPES = {
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
}
GEMMA = made.GROUPED | {"pad_token_id": 0}
WORLD = {
    "llama": (lambda: transformers.LlamaConfig(**made.GROUPED, **LLAMA), "llama-bpe", "llama"),
    "llama-biases": (
        lambda: transformers.LlamaConfig(**made.GROUPED, **LLAMA, attention_bias=True, mlp_bias=True),
        "smollm",
        "llama",
    ),
    **{
        f"llama-{kind}": (
            lambda kind=kind: transformers.LlamaConfig(
                **made.GROUPED, rope_parameters={"rope_type": kind, "rope_theta": 100.0, **ROPES[kind]}
            ),
            "pieces",
            "llama",
        )
        for kind in ROPES
    },
    "mistral": (lambda: transformers.MistralConfig(**made.GROUPED, sliding_window=64), "pieces", "llama"),
    "qwen2": (
        lambda: transformers.Qwen2Config(**made.SIZES, num_key_value_heads=2, max_position_embeddings=256),
        "qwen2",
        "qwen2",
    ),
    "qwen2-yarn": (
        lambda: transformers.Qwen2Config(
            **made.SIZES,
            num_key_value_heads=2,
            max_position_embeddings=256,
            rope_parameters={"rope_type": "yarn", "rope_theta": 100.0, **ROPES["yarn"]},
        ),
        "qwen2",
        "llama",
    ),
    "qwen3": (lambda: transformers.Qwen3Config(**made.GROUPED), "qwen2", "qwen3"),
    "gemma": (lambda: transformers.GemmaConfig(**GEMMA), "gemma", "gemma"),
    "gemma2": (
        lambda: transformers.Gemma2Config(**GEMMA, query_pre_attn_scalar=16, sliding_window=8),
        "gemma",
        "gemma2",
    ),
    "gemma3": (
        lambda: transformers.Gemma3TextConfig(
            **GEMMA,
            query_pre_attn_scalar=16,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        ),
        "gemma",
        "gemma3",
    ),
}


@pytest.mark.parametrize("name", WORLD)
def test_llama_cpp_computes_what_transformers_does(name, tmp_path, tokenizers):
    config, tokenizer, arch = WORLD[name]
    dense = model_of(tmp_path / "m", config(), tokenizers[tokenizer])
    half, wide = export(tmp_path / "out", dense, dense, "F16", "BF16")
    assert half.status == wide.status == "ok", (half.reason, wide.reason)
    assert half.notes[0] == f"architecture {arch}"
    assert half.max_difference < 0.02
    assert "same tokens of 20 texts, " in half.notes[1]
    assert "at 100.0% of the" in half.notes[1]


@pytest.mark.parametrize("name", ["llama", "llama-biases", "llama-yarn", "mistral", "qwen2"])
def test_llama_cpp_computes_layers_that_differ(name, tmp_path, tokenizers):
    config, tokenizer, _ = WORLD[name]
    dense = model_of(tmp_path / "m", config(), tokenizers[tokenizer])
    pruned = cut(dense, uneven)
    without_attention(pruned.model, 2)
    half, eight = export(tmp_path / "out", pruned, dense, "F16", "Q8_0")
    assert half.status == eight.status == "ok", (half.reason, eight.reason)
    assert half.notes[0] == "architecture deci"
    assert half.max_difference < 0.02


@pytest.mark.parametrize("tokenizer", ["words", "cased"])
def test_llama_cpp_computes_embeddings_and_classes(tokenizer, tmp_path, tokenizers):
    config = transformers.BertConfig(**made.SIZES)
    states = model_of(tmp_path / "e", config, tokenizers[tokenizer], "feature-extraction", auto="AutoModel")
    (row,) = export(tmp_path / "a", states, states, "F16")
    assert row.status == "ok", row.reason
    assert row.max_difference < 0.02
    named = transformers.BertConfig(**made.SIZES, id2label={0: "bad", 1: "good", 2: "neither"})
    classes = model_of(
        tmp_path / "c", named, tokenizers[tokenizer], "text-classification", auto="AutoModelForSequenceClassification"
    )
    (row,) = export(tmp_path / "b", classes, classes, "F16")
    assert row.status == "ok", row.reason
    assert row.max_difference < 0.02
    assert read(tmp_path / "b", row)[0]["bert.classifier.output_labels"] == ["bad", "good", "neither"]


def test_k_quants_of_rows_of_256_and_what_falls_back(tmp_path, tokenizers, monkeypatch):
    monkeypatch.chdir(tmp_path)  # folders may be named from where one is
    sizes = made.GROUPED | {"hidden_size": 512, "intermediate_size": 512, "head_dim": 128}
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**sizes, **LLAMA), tokenizers["gpt-2"])
    pruned = cut(dense, lambda index, group_size: group_size - 32 if index == 3 else group_size)
    without_attention(pruned.model, 2)
    rows = export(Path("out"), pruned, dense, "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
    assert [row.status for row in rows] == ["ok"] * 4, [row.reason for row in rows]
    sizes = [row.bytes for row in rows]
    assert sizes == sorted(sizes)
    assert all("ffn_down" in row.notes[-1] and "multiple of 256" in row.notes[-1] for row in rows[:3])
    assert {path.name for path in (tmp_path / "out" / "gguf").iterdir()} == {f"model-{row.kind}.gguf" for row in rows}


def test_the_quantizer_is_found_in_the_folder_that_a_job_is_given(tmp_path, tokenizers, monkeypatch):
    """The process of a service's job does not have the variable: its sandbox takes the folder of the worker's settings."""
    folder = engines_folder()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "nothing"))
    sizes = made.GROUPED | {"hidden_size": 512, "intermediate_size": 512, "head_dim": 128}
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**sizes, **LLAMA), tokenizers["gpt-2"])
    (row,) = export(tmp_path / "none", dense, dense, "Q4_K_M")
    assert row.status == "failed"
    (row,) = export(tmp_path / "found", dense, dense, "Q4_K_M", engines=folder)
    assert row.status == "ok", row.reason
    assert row.max_difference is not None, "and it has loaded the file"
    form = Form("gguf/model-Q4_K_M.gguf", kind="Q4_K_M")
    same = dense_form("gguf", form, dense, ArtifactSpec(), tmp_path / "dense", engines=folder)
    assert same is not None, "the dense model beside it is quantised, too"


def test_other_tokens_fail_the_row(tmp_path, tokenizers, monkeypatch):
    from pruning_core.artifacts.exports.gguf import tokens

    monkeypatch.setattr(tokens, "split_name", lambda _: "smollm")
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    (row,) = export(tmp_path / "out", dense, dense, "F16")
    assert row.status == "failed"
    assert row.reason.startswith("llama.cpp makes other tokens of")
    assert not (tmp_path / "out" / "gguf").exists()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_quantised_files_are_those_of_llama_cpps_quantizer(kind, tmp_path, tokenizers):
    """Tensor for tensor; the output of Q4_0 is Q8_0 there too where its rows are no multiple of 256."""
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"], dtype="float16")
    ours, half = export(tmp_path / "out", dense, dense, kind, "F16")
    theirs = tmp_path / "theirs.gguf"
    engine.quantize(engine.interpreter(), tmp_path / "out" / half.path, theirs, TYPES[kind].number)
    found, wanted = (
        {own.name: own for own in gguf.GGUFReader(path).tensors} for path in (tmp_path / "out" / ours.path, theirs)
    )
    assert set(found) == set(wanted)
    for name, own in found.items():
        assert own.tensor_type == wanted[name].tensor_type, name
        np.testing.assert_array_equal(own.data, wanted[name].data)


def test_other_tokens_behind_special_ones_are_told(tmp_path, tokenizers):
    config = transformers.MistralConfig(**made.GROUPED, sliding_window=None)
    said = []
    for name, tokenizer in (("every", tokenizers["pieces"]), ("first", made.piece_tokenizer(first=True))):
        dense = model_of(tmp_path / name, config, tokenizer)
        (row,) = export(tmp_path / f"out-{name}", dense, dense, "F16")
        assert row.status == "ok", row.reason
        said.append("behind special tokens in a text, as in chats, it makes others" in row.notes[1])
    assert said == [False, True]
