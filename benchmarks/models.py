"""Models of the benchmarks: the real ones of ``../shared``, and one of BERT-base's size with random weights."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_model(shared: Path, task: str) -> Path:
    """Return the folder of the model that is fine-tuned for a task."""
    folder = shared / "models" / f"minilm-{task}"
    if not folder.is_dir():
        sys.exit(f"no models under {shared}; give --shared a folder with models/ and data/")
    return folder


def random_bert_base(folder: Path, shared: Path) -> Path:
    """Write a classifier of BERT-base's size with random weights, and a real tokenizer so that it can read real text."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(num_labels=2)).save_pretrained(folder)
    source = shared_model(shared, "sst2")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    return folder
