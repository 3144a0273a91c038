"""Written configurations in both forms: the old keys say what the new ones do, and transformers 5 reads both alike."""

from __future__ import annotations

import json
import warnings

import pytest

from pruning_core.artifacts.config_forms import in_both_forms, write_both_forms

SIZES = {
    "vocab_size": 67, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "max_position_embeddings": 128, "head_dim": 16,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
# Model type, its entries in the old form, and the old keys that a written configuration must have.
CASES = {
    "theta": ("llama", {"rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": None}),
    "linear": (
        "llama",
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
    ),
    "llama3": ("llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3}, {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
    "yarn": (
        "qwen2",
        {"rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    ),
    "partial": (
        "stablelm",
        {"rope_theta": 7e4, "partial_rotary_factor": 0.5},
        {"rope_theta": 7e4, "partial_rotary_factor": 0.5, "rope_scaling": None},
    ),
    "two thetas": (
        "gemma3_text",
        {"rope_theta": 7e4, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"rope_theta": 7e4, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    "modernbert": (
        "modernbert",
        {"global_rope_theta": 7e4, "local_rope_theta": 5e3, "eos_token_id": 2, "bos_token_id": 1, "cls_token_id": 1,
         "sep_token_id": 2, "pad_token_id": 0},
        {"global_rope_theta": 7e4, "local_rope_theta": 5e3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_both_forms_say_the_same(tmp_path, name, derived):
    from transformers import AutoConfig

    model_type, given, wanted = CASES[name]
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({**SIZES, **given, "model_type": model_type, "torch_dtype": "bfloat16"}))
    config = AutoConfig.from_pretrained(source)
    config.save_pretrained(out)
    write_both_forms(out / "config.json", (tmp_path if derived else source) / "config.json")
    written = json.loads((out / "config.json").read_text())
    for key, value in wanted.items():
        found = written[key]
        if isinstance(value, dict):  # of a derived one, "type" may stand beside "rope_type"
            found = {own: found[own] for own in value}
        assert found == value
    assert written["torch_dtype"] == written["dtype"] == "bfloat16"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = AutoConfig.from_pretrained(out)
    assert again.rope_parameters == config.rope_parameters
    assert again.dtype == config.dtype


def test_layers_of_a_kind_without_an_old_form_are_left_alone():
    parts = {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {"rope_theta": 2.0}}
    assert "rope_theta" not in in_both_forms({"model_type": "other", "rope_parameters": parts}, {})
