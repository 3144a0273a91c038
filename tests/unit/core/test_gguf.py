"""GGUF files, read back by the gguf package."""

from __future__ import annotations

import json
import sys

import gguf
import numpy as np
import pytest
import torch
import transformers

from pruning_core.arch.adapter import clone
from pruning_core.artifacts.exports.gguf import interpreter as engine
from pruning_core.engines.registry import Missing, find
from pruning_core.run.pipeline import run
from tests import gguf_models as made
from tests.gguf_models import LLAMA, TEXT, cut, export, model_of, read, uneven, without_attention
from tests.tiny import tiny_spec, write_jsonl


@pytest.fixture(scope="module")
def tokenizers():
    return made.tokenizers()


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Hide llama.cpp."""
    monkeypatch.setenv("COPPICE_ENGINES_DIR", str(tmp_path / "nothing"))


def test_a_uniform_llama_has_llamas_architecture_and_every_value(tmp_path, tokenizers, alone):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    (row,) = export(tmp_path / "out", dense, dense, "F16")
    assert (row.status, row.path, row.kind) == ("ok", "gguf/model-F16.gguf", "F16")
    assert row.bytes == row.dense_bytes == (tmp_path / "out" / row.path).stat().st_size
    assert "llama.cpp is not installed here" in row.notes[1]
    assert row.max_difference is None
    head, tensors = read(tmp_path / "out", row)
    assert head["general.architecture"] == "llama"
    assert (head["llama.feed_forward_length"], head["llama.attention.head_count_kv"]) == (128, 2)
    assert (head["llama.rope.freq_base"], head["llama.attention.key_length"]) == (5000.0, 16)
    assert "output.weight" not in tensors, "tied"
    assert "rope_freqs.weight" not in tensors, "nothing is scaled"
    state = dense.model.state_dict()
    np.testing.assert_array_equal(tensors["token_embd.weight"], state["model.embed_tokens.weight"].half().float().numpy())
    np.testing.assert_array_equal(tensors["blk.2.ffn_down.weight"], state["model.layers.2.mlp.down_proj.weight"].half().numpy())
    query = state["model.layers.1.self_attn.q_proj.weight"].half().numpy()
    # Of a head of 16 values, transformers turns value 0 with value 8, and llama.cpp neighbours.
    np.testing.assert_array_equal(tensors["blk.1.attn_q.weight"][16:20], query[[16, 24, 17, 25]])
    assert head["tokenizer.chat_template"] == made.TEMPLATE
    assert head["tokenizer.ggml.tokens"][head["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"


def test_llama_cpp_is_looked_for_as_other_engines_are(tmp_path, tokenizers, alone):
    """An environment without it, and a file that is no program, are no llama.cpp: no job fails for trying them."""
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    for place, make in (
        ("other", lambda path: path.symlink_to(sys.executable)),
        ("broken", lambda path: path.write_text("#!")),
    ):
        python = tmp_path / place / "llama-cpp" / "bin" / "python"
        python.parent.mkdir(parents=True)
        make(python)
        assert (engine.interpreter(tmp_path / place) is None) == isinstance(find("llama.cpp", tmp_path / place), Missing)
        half, quantised = export(tmp_path / f"out-{place}", dense, dense, "F16", "Q4_K_M", engines=tmp_path / place)
        assert half.status == "ok", half.reason
        assert "llama.cpp is not installed here" in half.notes[1]
        assert quantised.reason.startswith("Q4_K_M is made by llama.cpp's own quantizer, and llama.cpp is not installed here")


def test_layers_with_widths_of_their_own_are_deci(tmp_path, tokenizers, alone):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["smollm"])
    (row,) = export(tmp_path / "out", cut(dense, uneven), dense, "F16")
    head, tensors = read(tmp_path / "out", row)
    assert (row.status, head["general.architecture"], head["tokenizer.ggml.pre"]) == ("ok", "deci", "smollm")
    assert head["deci.feed_forward_length"] == [128, 96, 64]
    assert head["deci.attention.head_count"] == [4, 2, 4]
    assert head["deci.attention.head_count_kv"] == [2, 1, 2]
    assert tensors["blk.1.attn_q.weight"].shape == (32, 64)
    dense_row = export(tmp_path / "dense", dense, dense, "F16")[0]
    assert row.bytes < row.dense_bytes
    assert abs(row.dense_bytes - dense_row.bytes) < 512, "but for what says the shapes"


def test_absent_attention_has_no_heads_and_no_tensors(tmp_path, tokenizers, alone):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    pruned = dense.with_model(clone(dense.model))
    without_attention(pruned.model, 1)
    (row,) = export(tmp_path / "out", pruned, dense, "F16")
    head, tensors = read(tmp_path / "out", row)
    assert head["deci.attention.head_count"] == [4, 0, 4]
    assert head["deci.attention.head_count_kv"] == [2, 0, 2]
    assert not [name for name in tensors if name.startswith("blk.1.attn")]


def test_a_first_layer_without_attention_is_refused(tmp_path, tokenizers):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    pruned = dense.with_model(clone(dense.model))
    without_attention(pruned.model, 0)
    rows = export(tmp_path / "out", pruned, dense, "F16", "Q8_0")
    assert {row.status for row in rows} == {"failed"}
    assert "first layer has no attention" in rows[0].reason
    assert not (tmp_path / "out" / "gguf").exists()


def test_attention_without_an_ffn_is_refused(tmp_path, tokenizers):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    pruned = dense.with_model(clone(dense.model))
    pruned.model.model.layers[2].mlp = torch.nn.Identity()
    (row,) = export(tmp_path / "out", pruned, dense, "F16")
    assert row.reason == "layer 2 has attention and no FFN: llama.cpp loses the attention of such a layer"


def test_qwen2_keeps_its_biases(tmp_path, tokenizers, alone):
    config = transformers.Qwen2Config(**made.SIZES, num_key_value_heads=2, max_position_embeddings=256)
    dense = model_of(tmp_path / "m", config, tokenizers["qwen2"])
    (row,) = export(tmp_path / "out", dense, dense, "F16")
    head, tensors = read(tmp_path / "out", row)
    state = dense.model.state_dict()
    assert (head["general.architecture"], head["tokenizer.ggml.pre"]) == ("qwen2", "qwen2")
    np.testing.assert_array_equal(tensors["blk.0.attn_k.bias"], state["model.layers.0.self_attn.k_proj.bias"].numpy())
    np.testing.assert_array_equal(tensors["output.weight"], state["lm_head.weight"].half().numpy())
    (row,) = export(tmp_path / "cut", cut(dense, uneven), dense, "F16")
    head, tensors = read(tmp_path / "cut", row)
    assert head["general.architecture"] == "deci"
    bias = state["model.layers.0.self_attn.k_proj.bias"].numpy()
    np.testing.assert_array_equal(tensors["blk.0.attn_k.bias"][:4], bias[[0, 8, 1, 9]])


def test_rows_that_are_no_whole_blocks_stay_in_float16_and_are_listed(tmp_path, tokenizers, alone):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    pruned = cut(dense, lambda index, group_size: group_size - 8 if index == 3 else group_size)
    eight, four = export(tmp_path / "out", pruned, dense, "Q8_0", "Q4_0")
    assert eight.notes[-1] == "matrices of another type, whose rows are no multiple of 32: ffn_down F16"
    assert four.notes[-1].endswith("or which it keeps finer: ffn_down F16, token_embd Q8_0")
    assert four.bytes < eight.bytes
    assert eight.bytes > eight.dense_bytes, "rows of 120 values cost more in float16 than rows of 128 in Q8_0"


def test_values_beyond_float16_are_refused_by_name(tmp_path, tokenizers, alone):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    with torch.no_grad():
        dense.model.model.layers[1].mlp.up_proj.weight[0, 0] = 70_000.0
    half, other = export(tmp_path / "out", dense, dense, "F16", "BF16")
    assert "blk.1.ffn_up.weight has values beyond float16" in half.reason
    assert other.status == "ok"
    assert [path.name for path in (tmp_path / "out" / "gguf").iterdir()] == ["model-BF16.gguf"]


def test_k_quants_say_how_to_get_llama_cpp(tmp_path, tokenizers, alone):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    (row,) = export(tmp_path / "out", dense, dense, "Q4_K_M")
    assert row.status == "failed"
    assert "make engines" in row.reason
    assert not (tmp_path / "out" / "gguf").exists()


def test_an_encoder_says_its_pooling(tmp_path, tokenizers, alone):
    config = transformers.BertConfig(**made.SIZES)
    dense = model_of(tmp_path / "m", config, tokenizers["words"], "feature-extraction", auto="AutoModel")
    (row,) = export(tmp_path / "out", dense, dense, "F16")
    head, tensors = read(tmp_path / "out", row)
    assert head["general.architecture"] == "bert"
    assert (head["bert.pooling_type"], head["bert.attention.causal"]) == (gguf.PoolingType.MEAN, False)
    assert head["tokenizer.ggml.token_type_count"] == 2
    assert not [name for name in tensors if name.startswith("cls")]
    assert head["tokenizer.ggml.tokens"][:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_an_encoder_whose_layers_differ_is_refused(tmp_path, tokenizers):
    dense = model_of(
        tmp_path / "m", transformers.BertConfig(**made.SIZES), tokenizers["words"], "feature-extraction", auto="AutoModel"
    )
    (row,) = export(tmp_path / "out", cut(dense, uneven), dense, "F16")
    assert "encoders, whose layers all have the widths of the first" in row.reason


def test_a_tokenizer_that_llama_cpp_has_no_name_for_is_refused(tmp_path):
    odd = made.byte_tokenizer(r"\p{L}+|\p{N}+|[^\p{L}\p{N}]+")
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), odd)
    (row,) = export(tmp_path / "out", dense, dense, "F16")
    assert row.reason.startswith("llama.cpp has no name for the rules by which the tokenizer splits texts (Split, ByteLevel)")


def test_a_layer_without_anything_is_left_out(tmp_path, tokenizers, alone):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    pruned = dense.with_model(clone(dense.model))
    without_attention(pruned.model, 1)
    pruned.model.model.layers[1].mlp = torch.nn.Identity()
    (row,) = export(tmp_path / "out", pruned, dense, "F16")
    head, tensors = read(tmp_path / "out", row)
    assert (head["general.architecture"], head["llama.block_count"]) == ("llama", 2)
    last = dense.model.state_dict()["model.layers.2.mlp.up_proj.weight"].half().numpy()
    np.testing.assert_array_equal(tensors["blk.1.ffn_up.weight"], last)


def test_a_tensor_without_a_place_is_never_dropped(tmp_path, tokenizers, alone):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    dense.model.model.layers[1].self_attn.q_norm = torch.nn.RMSNorm(16)
    (row,) = export(tmp_path / "out", dense, dense, "F16")
    assert row.reason == "the tensor model.layers.1.self_attn.q_norm.weight has no place in llama.cpp's architecture"


def test_what_nobody_foresaw_is_a_row_and_no_end_of_the_job(tmp_path, tokenizers, alone, caplog):
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    pruned = dense.with_model(clone(dense.model))
    vars(pruned.model.config)["rms_norm_eps"] = "tiny"
    (row,) = export(tmp_path / "out", pruned, dense, "F16")
    assert "an error that nobody foresaw ended the export (ValueError)" in row.reason
    assert "was not made" in caplog.text


def test_tasks_that_llama_cpp_has_no_output_for_are_refused(tmp_path, tokenizers):
    config = transformers.BertConfig(**made.SIZES, num_labels=3)
    tags = model_of(tmp_path / "t", config, tokenizers["words"], "token-classification", auto="AutoModelForTokenClassification")
    (row,) = export(tmp_path / "out", tags, tags, "F16")
    assert "has no output for token-classification" in row.reason
    config = transformers.LlamaConfig(**made.GROUPED, **LLAMA, num_labels=2, pad_token_id=0)
    classes = model_of(
        tmp_path / "c", config, tokenizers["gpt-2"], "text-classification", auto="AutoModelForSequenceClassification"
    )
    (row,) = export(tmp_path / "out", classes, classes, "F16")
    assert "files of decoders are written for text-generation" in row.reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [("exit 3", "llama.cpp ended with code 3 and without an answer"), ("sleep 60", "llama.cpp was not done after 1 seconds")],
)
def test_an_engine_that_breaks_or_hangs_is_a_row(program, reason, tmp_path, tokenizers, monkeypatch):
    place = tmp_path / "engines" / "llama-cpp" / "bin" / "python"
    place.parent.mkdir(parents=True)
    answers = """[ "$1" = -P ] && echo '{"versions": {"llama-cpp-python": "0.3"}, "wrong": null}' > "$4" && exit"""
    place.write_text(f"#!/bin/sh\n{answers}\n{program}\n")
    place.chmod(0o755)
    monkeypatch.setenv("COPPICE_ENGINES_DIR", str(tmp_path / "engines"))
    monkeypatch.setattr(engine, "_START_S", 1.0)
    dense = model_of(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    rows = export(tmp_path / "out", dense, dense, "F16", "Q4_K_M")
    assert [row.reason for row in rows] == [reason, reason]
    assert not (tmp_path / "out" / "gguf").exists()


@pytest.mark.long
def test_a_job_delivers_the_files_and_their_rows(tmp_path, tokenizers, alone, proven_by_a_fork):
    model = made.write(tmp_path / "m", transformers.LlamaConfig(**made.GROUPED, **LLAMA), tokenizers["gpt-2"])
    data = write_jsonl(tmp_path / "data")
    task = {"type": TEXT, "columns": {"text": ["text"]}, "metric": "perplexity"}
    changes = {"task": task, "artifacts": {"formats": ["safetensors", "gguf"], "gguf": ["F16", "Q8_0"]}}
    changes["target"] = {"metric": "macs", "keep": 0.7}  # at half, this random model loses a whole FFN, which deci can't say
    report = run(tiny_spec(model, data, **changes), tmp_path / "out")
    rows = [row for row in report.exports if row.format == "gguf"]
    assert [(row.kind, row.status) for row in rows] == [("F16", "ok"), ("Q8_0", "ok")], [row.reason for row in rows]
    head, _ = read(tmp_path / "out", rows[0])
    assert head["general.architecture"] == "deci"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {row.path for row in rows} <= set(manifest["files"])
