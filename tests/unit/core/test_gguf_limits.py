"""What llama.cpp can't hold is said by name, from a config alone; its names for tokenizers' rules."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import transformers

from pruning_core.artifacts.exports.gguf.base import NotHeld
from pruning_core.artifacts.exports.gguf.parameters import context_length, pooling_of
from pruning_core.artifacts.exports.gguf.splits import split_name
from pruning_core.artifacts.exports.gguf.tokens import vocabulary
from pruning_core.checks.recipe import DenseStep, PoolingStep, Recipe, UnitStep
from pruning_core.engines.llama_cpp import FAMILIES, reason_against
from tests import gguf_models as made

LLAMA = transformers.LlamaConfig().to_dict()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_families_are_held_as_they_are_published(name):
    config = transformers.CONFIG_MAPPING[name]().to_dict()
    assert reason_against(config) is None
    uneven = reason_against(config, alike=False)
    assert (uneven is None) == (name in ("llama", "mistral", "qwen2")), uneven


REFUSED = {
    "attention sinks": ({"model_type": "gpt_oss"}, True),
    "GGUF files are written of bert, gemma, gemma2, gemma3_text, llama, mistral, qwen2 and qwen3 models, and not of opt": (
        {"model_type": "opt"},
        True,
    ),
    "norms of queries and keys (QK-norm)": (transformers.Qwen3Config().to_dict(), False),
    "the activation gelu": (LLAMA | {"hidden_act": "gelu"}, True),
    "rotary positions of the type dynamic": (LLAMA | {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, True),
    "rotary positions of the type longrope": (LLAMA | {"rope_parameters": None, "rope_scaling": {"type": "longrope"}}, True),
    "a part of each head": (LLAMA | {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, True),
    "at most 512 layers": (LLAMA | {"num_hidden_layers": 513}, True),
    "scaled by 144 in place of 128": (
        transformers.Gemma2Config(query_pre_attn_scalar=144, head_dim=128).to_dict(),
        True,
    ),
    "attention in both directions": (transformers.Gemma3TextConfig(use_bidirectional_attention=True).to_dict(), True),
    "causal attention": (transformers.BertConfig(is_decoder=True).to_dict(), True),
    "positions of the type relative_key": ({"model_type": "bert", "position_embedding_type": "relative_key"}, True),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_not_held_is_named(words):
    config, alike = REFUSED[words]
    assert words in reason_against(config, alike=alike)


def test_a_config_of_ours_names_the_family_that_it_was_made_from():
    config = LLAMA | {"model_type": "nemotron-nas", "base_model_type": "llama"}
    assert reason_against(config, alike=False) is None
    assert "nemotron-nas" in reason_against(config | {"base_model_type": None})


@pytest.mark.parametrize("value", [None, 0, -1, "x", [], {}, [1], {"a": {}}, {"rope_type": []}, True])
@pytest.mark.parametrize("key", ["rope_parameters", "hidden_act", "num_attention_heads", "num_hidden_layers", "head_dim"])
def test_odd_configs_do_not_break_it(key, value):
    for own in (LLAMA, transformers.Gemma2Config(num_hidden_layers=46).to_dict()):
        assert isinstance(reason_against(own | {key: value}), str | None)


def test_it_needs_neither_torch_nor_numpy():
    module = "pruning_core.engines.llama_cpp"
    code = f"import sys, {module}; print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


RULES = {
    "gpt-2": {"regex": None},
    "smollm": {"regex": None, "digits": True},
    "llama-bpe": {"regex": made.LLAMA3, "whole": True},
    "dbrx": {"regex": made.LLAMA3},
    "qwen2": {"regex": made.QWEN2},
}


@pytest.mark.parametrize("name", RULES)
def test_rules_have_their_names_whatever_the_vocabulary(name):
    tokenizer = made.byte_tokenizer(**RULES[name])
    assert split_name(json.loads(tokenizer.backend_tokenizer.to_str())) == name


@pytest.mark.parametrize(
    "step",
    [
        None,
        {"type": "ByteLevel", "add_prefix_space": True},
        {"type": "Whitespace"},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"Regex": made.QWEN2}, "behavior": "MergedWithNext", "invert": False},
        {"type": "Digits", "individual_digits": False},
    ],
)
def test_other_rules_have_none(step):
    assert split_name({"pre_tokenizer": step, "model": {}}) is None


def test_tokens_that_end_a_generation_are_kept():
    tokenizer = made.byte_tokenizer(None)
    values = vocabulary(tokenizer, 640, [tokenizer.eos_token_id, 7, 9]).values
    assert values["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert (values["tokenizer.ggml.eot_token_id"], values["tokenizer.ggml.eom_token_id"]) == (7, 9)
    assert values["tokenizer.ggml.tokens"][639] == "[PAD639]"


def test_a_tokenizer_that_normalises_otherwise_is_refused():
    from tokenizers import normalizers

    tokenizer = made.byte_tokenizer(None)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(NotHeld, match="changes texts before it reads them"):
        vocabulary(tokenizer, 640)
    pieces = made.piece_tokenizer()
    pieces.backend_tokenizer.normalizer = normalizers.NFKC()
    with pytest.raises(NotHeld, match="NFKC"):
        vocabulary(pieces, 640)


def test_more_tokens_than_embeddings_are_refused():
    with pytest.raises(NotHeld, match="the embeddings have 500 rows"):
        vocabulary(made.byte_tokenizer(None), 500)


def test_a_context_ends_where_a_window_does():
    config = transformers.MistralConfig(sliding_window=512, max_position_embeddings=4096).to_dict()
    assert context_length(config) == 512
    assert context_length(config | {"sliding_window": None}) == 4096


def test_poolings_that_llama_cpp_lacks_are_refused():
    assert pooling_of(Recipe((PoolingStep("1", ("cls",)), UnitStep("2")), own=True)).name == "CLS"
    for steps in (
        (PoolingStep("1", ("max",)),),
        (PoolingStep("1", ("mean", "cls")),),
        (PoolingStep("1", ("mean",)), DenseStep("2", 8, 4, True, "torch.nn.Tanh", False)),
    ):
        with pytest.raises(NotHeld):
            pooling_of(Recipe(steps, own=True))
