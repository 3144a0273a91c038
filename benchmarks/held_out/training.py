"""Fine-tuning of all-MiniLM-L6-v2 on a task, by a recipe that was fixed before anything was trained or pruned.

The recipe is the usual one for encoders of this size. It is not tuned, and no checkpoint is chosen by its score: the last one
counts. All tasks have the same.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Recipe:
    """AdamW with a linear warm-up and a linear decline, in float32; embeddings stay, and batches are of rows of like length."""

    epochs: int = 2
    batch: int = 32
    rate: float = 1e-4
    decay: float = 0.01
    warm_up: float = 0.1
    max_length: int = 64
    seed: int = 0


RECIPE = Recipe()


def fine_tune(dense: Path, data: Path, texts: tuple[str, ...], label: str, folder: Path, told: Callable[[str], None]) -> None:
    """Write the fine-tuned model into a folder, unless it is there.

    Args:
        dense: Folder of the model to start from.
        data: Folder with ``train.jsonl``.
        texts: Columns of the input.
        label: Column of class numbers, or of scores.
        folder: Where to write.
        told: Called with a line about each epoch.
    """
    if folder.is_dir():
        return
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows: list[dict[str, Any]] = [json.loads(line) for line in (data / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = any(isinstance(row[label], float) for row in rows)
    classes = 1 if scores else 1 + max(row[label] for row in rows)
    torch.manual_seed(RECIPE.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(dense)
    kind = "regression" if scores else "single_label_classification"
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        dense, num_labels=classes, problem_type=kind, dtype=torch.float32
    )

    def batch_of(chosen: list[int]) -> dict[str, torch.Tensor]:
        columns = [[rows[index][name] for index in chosen] for name in texts]
        tokens = tokenizer(*columns, truncation=True, max_length=RECIPE.max_length, padding=True, return_tensors="pt")
        return {**tokens, "labels": torch.tensor([rows[index][label] for index in chosen])}

    model.get_input_embeddings().requires_grad_(False)
    longest = [sum(len(str(row[name])) for name in texts) for row in rows]
    _train(model, longest, batch_of, told)
    partial = folder.with_name(folder.name + ".partial")
    model.eval().save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


def _train(
    model: Any, lengths: list[int], batch_of: Callable[[list[int]], dict[str, torch.Tensor]], told: Callable[[str], None]
) -> None:
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=RECIPE.rate, weight_decay=RECIPE.decay)
    steps = RECIPE.epochs * math.ceil(len(lengths) / RECIPE.batch)
    warm = max(1, round(RECIPE.warm_up * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    drawn = torch.Generator().manual_seed(RECIPE.seed)
    for epoch in range(RECIPE.epochs):
        began, losses = time.perf_counter(), list[float]()
        for chosen in _batches(lengths, drawn):
            loss = model(**batch_of(chosen)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            losses.append(float(loss.detach()))
        seconds = time.perf_counter() - began
        told(f"epoch {epoch + 1} of {RECIPE.epochs}: loss {sum(losses) / len(losses):.3f}, {seconds:.0f} s")


def _batches(lengths: list[int], drawn: torch.Generator) -> list[list[int]]:
    """Return the batches of an epoch: rows of like length among 16 batches' worth of rows that were drawn, in a drawn order."""
    order: list[int] = torch.randperm(len(lengths), generator=drawn).tolist()
    portion = 16 * RECIPE.batch
    parts = [sorted(order[at : at + portion], key=lambda row: lengths[row]) for at in range(0, len(order), portion)]
    batches = [part[at : at + RECIPE.batch] for part in parts for at in range(0, len(part), RECIPE.batch)]
    return [batches[at] for at in torch.randperm(len(batches), generator=drawn).tolist()]
