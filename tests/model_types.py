"""Every type of model that transformers has, as a tiny random model where one can be made, and what becomes of it here.

``python -m tests.model_types bert mbart`` prints it of types; of all where none is named.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from pruning_core.spec.tasks import KINDS

# What configurations call sizes, and the tiny ones. What is not an integer there is left as it is.
_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "attention_heads"), 4),
    **dict.fromkeys(
        ("intermediate_size", "hidden_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "d_inner"), 64
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_2d_position_embeddings"), 66),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "entity_vocab_size"), 72),
    **dict.fromkeys(("head_dim", "d_kv", "global_head_dim", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "block_size", "attention_window", "patch_size"), 4
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("moe_intermediate_size", "image_size", "entity_emb_size"), 16),
    "sliding_window": 4,
    "rotary_dim": 4,
}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
_MOST = 20_000_000  # parameters of a model that counts as tiny


def pairs():
    """List model types with the classes of transformers that load them, of those that tasks are done with."""
    from transformers.models.auto import modeling_auto

    mappings = {
        "AutoModelForSequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForTokenClassification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForQuestionAnswering": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
        "AutoModelForMaskedLM": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForSeq2SeqLM": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForImageClassification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModel": modeling_auto.MODEL_MAPPING_NAMES,
    }
    return [(model_type, loaded) for loaded, types in mappings.items() for model_type in types]


def tiny_config(model_type: str):
    """Make a configuration as small as its names of sizes allow."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    usual: dict[str, Any] = kind().to_dict()
    given = {name: size for name, size in _SIZES.items() if type(usual.get(name)) is int}
    if usual.get("num_key_value_heads") == usual.get("num_attention_heads"):
        given.pop("num_key_value_heads", None)
    writes = {"decoder_start_token_id": 2} if usual.get("is_encoder_decoder") else {}
    given |= {name: token for name, token in _TOKENS.items() if name in usual} | writes
    if isinstance(usual.get("layer_types"), list):
        given["layer_types"] = (list(dict.fromkeys(usual["layer_types"])) * 2)[:2]
    return kind(**given)


def tiny_model(model_type: str, loaded: str):
    """Make a model with weights large enough for everything to matter.

    Raises:
        ValueError: It would not be tiny.
    """
    import torch
    import transformers

    config, auto = tiny_config(model_type), getattr(transformers, loaded)
    with torch.device("meta"):
        size = sum(own.numel() for own in auto.from_config(config).parameters())
    if size > _MOST:
        raise ValueError(f"{size} parameters")
    torch.manual_seed(0)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and not any(own in name for own in ("embed", "wte", "shared")):
                parameter.normal_(std=0.2)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


def inputs_for(model, loaded: str):
    """Make a batch as a task of the class would."""
    import torch

    if loaded == "AutoModelForImageClassification":
        size = getattr(model.config, "image_size", 16)
        shape = (3, 3, *(size if isinstance(size, list | tuple) else (size, size)))
        return {"pixel_values": torch.randn(shape, generator=torch.Generator().manual_seed(0))}
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:], ids[1, 6:] = 0, 0
    ids[0, 8] = ids[1, 5] = ids[2, 8] = 3
    decoded = {"decoder_input_ids": ids[:, :5]} if loaded == "AutoModelForSeq2SeqLM" else {}
    return {"input_ids": ids, "attention_mask": mask, **decoded}


def fate(model_type: str, loaded: str, folder: Path) -> str:
    """Say what becomes of a model: ``works``, ``refused: ...`` by its files alone, or ``not made`` where there is no tiny one.

    Raises:
        Exception: Whatever goes wrong behind the submit.
    """
    import transformers

    from pruning_core.arch.adapter import adapt
    from pruning_core.arch.structure import groups_of
    from pruning_core.arch.verify import verify
    from pruning_core.checks.heads import check_type
    from pruning_core.errors import PruningError
    from pruning_core.files.checkpoint import read_checkpoint

    try:
        tiny_model(model_type, loaded).save_pretrained(folder)
    except Exception as error:  # whatever transformers has against configurations made by rote
        return f"not made: {type(error).__name__}"
    (folder / "tokenizer.json").write_text("{}")
    facts = read_checkpoint(folder)
    try:
        groups = groups_of(facts)
        check_type(next(name for name, kind in KINDS.items() if kind.loads_as == loaded), facts.config)
    except PruningError as error:
        return f"refused: {error.message}"
    model = getattr(transformers, loaded).from_pretrained(folder).eval().requires_grad_(False)
    adapter = adapt(model)
    assert adapter.groups == groups, "files and modules tell of the same units"
    verify(adapter, inputs_for(model, loaded))
    return f"works as {adapter.family.family}"


def main(names: list[str]) -> None:
    """Print the fate of types, and what went wrong behind the submit."""
    warnings.simplefilter("ignore")
    for model_type, loaded in pairs():
        if names and model_type not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = fate(model_type, loaded, Path(folder))
            except Exception as error:
                found = f"LATE {type(error).__name__}: {error}"
        print(f"{model_type:32} {loaded:36} {found[:200]}", flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    main(sys.argv[1:])
