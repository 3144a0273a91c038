"""What the cases beside this file make their models and data of."""

from __future__ import annotations

import json
import random
from pathlib import Path

import transformers

from tests import tiny
from tests.families import ARCHITECTURES

transformers.logging.disable_progress_bar()

MODEL, DATA = Path("work/model"), Path("work/data")


def classifier(folder: Path = MODEL, **options) -> Path:
    """Write a BERT of two classes."""
    return ARCHITECTURES["bert"].write(folder, "classification", **options)


def decoder(folder: Path = MODEL) -> Path:
    """Write a Llama."""
    return ARCHITECTURES["llama"].write(folder, "generation")


def rows(count: int, seed: int = 0) -> list[dict]:
    """Draw texts with the classes 0 and 1."""
    rng = random.Random(seed)
    drawn = [rng.choices(tiny.WORDS, k=rng.randint(4, 20)) for _ in range(count)]
    return [{"text": " ".join(words), "label": int("good" in words)} for words in drawn]


def jsonl(folder: Path = DATA, change=lambda row: row, splits=("train", "validation")) -> Path:
    """Write both splits as JSON Lines, each row changed."""
    folder.mkdir(parents=True)
    for number, split in enumerate(splits):
        text = "".join(json.dumps(change(row)) + "\n" for row in rows(40, number))
        (folder / f"{split}.jsonl").write_text(text)
    return folder


def configure(folder: Path = MODEL, **changes) -> None:
    """Change a model's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename_weights(change, folder: Path = MODEL) -> None:
    """Rename every tensor."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({change(name): value for name, value in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
