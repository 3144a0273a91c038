"""Tiny random models and a data set of a few kilobytes, by code of its own: other tests may change theirs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (*(f"word{number}" for number in range(25)), "good", "bad")
HIDDEN, HEADS, NEURONS, LAYERS = 16, 4, 32, 2
POSITIONS = 32

_SHARED = {"vocab_size": len(SPECIAL + WORDS), "pad_token_id": 0}
_SIZES = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "intermediate_size": NEURONS, "num_hidden_layers": LAYERS}
_LLAMA = {"num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "bos_token_id": 2, "eos_token_id": 3}
_T5 = {
    "d_model": HIDDEN,
    "d_kv": HIDDEN // HEADS,
    "d_ff": NEURONS,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "relative_attention_num_buckets": 8,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}
# Model class, configuration class, and what the configuration says.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": (
        "BertForSequenceClassification",
        "BertConfig",
        _SIZES | _SHARED | {"max_position_embeddings": POSITIONS, "num_labels": 2},
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _SIZES | _SHARED | _LLAMA),
    "t5": ("T5ForConditionalGeneration", "T5Config", _SHARED | _T5),
}


def write_model(folder: Path, kind: str) -> Path:
    """Write a model with weights large enough for every head to matter, and its tokenizer."""
    import torch
    import transformers

    model_class, config_class, options = KINDS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                table = any(part in name for part in ("embed", "shared", "relative_attention_bias"))
                parameter.normal_(std=1.0 if table else 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1, generator=generator)
    model.eval().save_pretrained(folder)
    _write_tokenizer(folder, ends_only=kind != "bert")
    return folder


def _write_tokenizer(folder: Path, *, ends_only: bool) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "$A [SEP]" if ends_only else "[CLS] $A [SEP]"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
        eos_token="[SEP]",
        **names,
    ).save_pretrained(folder)


def write_data(folder: Path, rows: int = 96) -> Path:
    """Write both splits as JSON Lines, with the columns of GLUE SST-2 and a second text."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for split, count in (("train", rows), ("validation", rows // 2)):
        lines: list[str] = []
        for _ in range(count):
            words = rng.choices(WORDS, k=rng.randint(4, 14))
            row = {"sentence": " ".join(words), "other": " ".join(words[:3]), "label": int("good" in words)}
            lines.append(json.dumps(row))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
