"""Three tiny models and their data for `benchmarks.same`, made with transformers alone, without code of the compared trees.

Weights are drawn with a seed and trained briefly, so that a mask changes the quality. Widths that patterns and blocks need are
multiples of 16. The decoder's embeddings are large enough that its weights are written in shards of one megabyte.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = 120
_STEPS, _BATCH, _LENGTH = 150, 16, 24
_ROWS = {"train": 240, "validation": 64}
_IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


def write_inputs(folder: Path) -> None:
    """Write ``bert``, ``llama`` and ``t5`` with their tokenizers, and ``data``, with a folder of JSON Lines for each model."""
    import torch
    import transformers

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    for name, (auto, config, words) in _models().items():
        rows = {split: _rows(name, split, count) for split, count in _ROWS.items()}
        data = folder / "data" / name
        data.mkdir(parents=True)
        for split, own in rows.items():
            (data / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in own), encoding="utf-8")
        tokenizer = _tokenizer(words)
        torch.manual_seed(sum(name.encode()))
        model = getattr(transformers, auto).from_config(config)
        _teach_(model, tokenizer, rows["train"])
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    torch.set_num_threads(before)


def _models() -> dict[str, tuple[str, Any, int]]:
    """Return the transformers class, the configuration and the vocabulary size of each model, by name."""
    import transformers

    words, many = len(SPECIAL) + _WORDS, 2400
    bert = transformers.BertConfig(
        vocab_size=words,
        hidden_size=48,
        num_attention_heads=4,
        num_hidden_layers=3,
        intermediate_size=128,
        max_position_embeddings=64,
        num_labels=2,
    )
    llama = transformers.LlamaConfig(
        vocab_size=many,
        hidden_size=64,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_hidden_layers=3,
        intermediate_size=160,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        **_IDS,
    )
    t5 = transformers.T5Config(
        vocab_size=words,
        d_model=48,
        d_kv=12,
        num_heads=4,
        d_ff=96,
        num_layers=2,
        num_decoder_layers=2,
        relative_attention_num_buckets=8,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=3,
    )
    return {
        "bert": ("AutoModelForSequenceClassification", bert, words),
        "llama": ("AutoModelForCausalLM", llama, many),
        "t5": ("AutoModelForSeq2SeqLM", t5, words),
    }


def _rows(name: str, split: str, count: int) -> list[dict[str, Any]]:
    """Draw texts with a structure to learn: each word is one of two that follow from the word before it."""
    rng = random.Random(f"{name} {split}")  # noqa: S311 - texts, no secrets
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        word, text = rng.randrange(_WORDS), list[str]()
        for _ in range(rng.randint(6, 24)):
            text.append(f"w{word}")
            word = (7 * word + rng.choice((1, 5))) % _WORDS
        row: dict[str, Any] = {"text": " ".join(text)}
        if name == "bert":
            row["label"] = int(sum(int(own[1:]) for own in text) / len(text) > _WORDS / 2)
        if name == "t5":
            row["summary"] = " ".join(text[:4])
        rows.append(row)
    return rows


def _tokenizer(size: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL, *(f"w{index}" for index in range(size - len(SPECIAL)))]
    tokenizer = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        bos_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )


def _teach_(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> None:
    """Train briefly: on the labels or summaries of the rows, or else on their next words."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(_STEPS):
        own = [rows[(step * _BATCH + index) % len(rows)] for index in range(_BATCH)]
        encoded = tokenizer(
            [row["text"] for row in own], padding=True, truncation=True, max_length=_LENGTH, return_tensors="pt"
        )
        if "label" in own[0]:
            labels = torch.tensor([row["label"] for row in own])
        else:
            answers = (
                tokenizer([row["summary"] for row in own], padding=True, return_tensors="pt")
                if "summary" in own[0]
                else encoded
            )
            labels = answers["input_ids"].masked_fill(answers["attention_mask"] == 0, -100)
        loss = model(**encoded, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
