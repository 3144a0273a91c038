"""Tiny random models of each supported family, and a data set that they can be pruned on, made on the spot."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = [f"word{i}" for i in range(60)] + ["good", "bad"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FAMILIES = ("bert", "distilbert", "roberta", "electra")
HIDDEN, HEADS, NEURONS, LAYERS = 32, 4, 64, 2


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def write_byte_tokenizer(folder: Path) -> None:
    """Write one of bytes and merges, where transformers takes every tokenizer of a model type for such (Qwen2)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    merges = [("w", "o"), ("r", "d"), ("wo", "rd"), ("g", "o"), ("o", "d"), ("go", "od"), ("b", "a"), ("ba", "d")]
    merges += [("\u0120", word) for word in ("word", "good", "bad")]  # a space in front
    pieces = [*SPECIAL, *"word0123456789gba\u0120", *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, model_input_names=["input_ids", "attention_mask"], **names
    ).save_pretrained(folder)


def build_model(family: str, *, task: str = "classification", num_labels: int = 2, seed: int = 0, **sizes_instead: int):
    """Make a model with weights large enough for masks to matter; sizes by BERT's names replace the tiny ones."""
    import torch
    import transformers

    common = {"vocab_size": len(SPECIAL + WORDS), "max_position_embeddings": 66, "pad_token_id": 0}
    if family == "distilbert":
        config = transformers.DistilBertConfig(
            dim=HIDDEN, n_heads=HEADS, hidden_dim=NEURONS, n_layers=LAYERS, num_labels=num_labels, **common
        )
    else:
        sizes = {
            "hidden_size": HIDDEN,
            "num_attention_heads": HEADS,
            "intermediate_size": NEURONS,
            "num_hidden_layers": LAYERS,
            "num_labels": num_labels,
        }
        if family == "electra":
            sizes["embedding_size"] = 16
        sizes |= sizes_instead
        configs = {
            "bert": transformers.BertConfig,
            "roberta": transformers.RobertaConfig,
            "electra": transformers.ElectraConfig,
        }
        config = configs[family](**sizes, **common)
    auto = transformers.AutoModelForSequenceClassification if task == "classification" else transformers.AutoModel
    torch.manual_seed(seed)
    model = auto.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embedding" not in name:
                parameter.normal_(std=0.2)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model.eval()


def write_model(folder: Path, family: str, **options) -> Path:
    build_model(family, **options).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_dataset(folder: Path, rows: int = 240, *, seed: int = 0) -> Path:
    """Write train and validation Parquet files with GLUE SST-2's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    for split, count in (("train", rows), ("validation", rows // 2)):
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 20))) for _ in range(count)]
        table = pa.table(
            {"sentence": texts, "label": [int("good" in text.split()) for text in texts], "idx": list(range(count))}
        )
        pq.write_table(table, folder / f"{split}.parquet")
    return folder


def write_bomb(folder: Path, gigabytes: float) -> Path:
    """Write Parquet files of a few kilobytes whose texts take gigabytes when they are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    text, rows = "word1 " * 170_000, round(gigabytes * 1000)
    table = pa.table({"sentence": [text] * rows, "label": [0] * rows, "idx": list(range(rows))})
    for split in ("train", "validation"):
        pq.write_table(table, folder / f"{split}.parquet", compression="zstd")
    return folder


def write_jsonl(folder: Path, rows: int = 120) -> Path:
    """Write unlabelled sentences as JSON Lines."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    for split in ("train", "validation"):
        lines = [json.dumps({"text": " ".join(rng.choices(WORDS, k=rng.randint(3, 20)))}) for _ in range(rows)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def tiny_spec(model: Path, data: Path, **changes):
    """Give a small spec over a tiny model and data set."""
    from pruning_core.spec.prune import PruneSpec

    fields = {
        "model": str(model),
        "task": "glue/sst2",
        "data": str(data),
        "target": {"metric": "macs", "keep": 0.5},
        "calibration": {"samples": 64, "max_length": 32, "batch_tokens": 256},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
    }
    return PruneSpec.model_validate(fields | changes)


def rows_to_learn():
    """Return 160 short texts, of which every other one ends in a word that gives its label away."""
    from pruning_core.data.rows import Rows

    words = [f"word{i}" for i in range(20)]
    texts = [" ".join(words[(i * k) % 20] for k in range(1, 3 + i % 9)) + (" good" if i % 2 else "") for i in range(160)]
    return Rows(texts=tuple((text,) for text in texts), labels=tuple(float(i % 2) for i in range(160)))
