"""Probes: held-out inputs that the worker and the fresh process run alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.data.rows import Rows
from pruning_core.spec.tasks import KINDS, Reads
from pruning_core.tasks.base import TaskModel, proven
from pruning_core.tasks.lengths import part_of


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """A batch of held-out inputs (texts, words, or images in base64), and the length in tokens that it is cut to."""

    texts: tuple[tuple[str, ...], ...]
    length: int


def make_probes(held_out: Rows, max_length: int, reads: Reads = "text") -> tuple[ProbeInput, ...]:
    """Make batches of 1, 3, 8 and 8 held-out inputs: the first cut short, the last with long texts joined from 8 rows each."""
    texts = [held_out.texts[i % len(held_out)] for i in range(64)]
    if reads == "words":
        joined = [sum(texts[i : i + 8], ()) for i in range(0, 64, 8)]
    elif reads == "text":
        joined = [tuple(" ".join(parts) for parts in zip(*texts[i : i + 8], strict=True)) for i in range(0, 64, 8)]
    else:
        joined = texts[12:20]
    return (
        ProbeInput(tuple(texts[:1]), min(8, max_length)),
        ProbeInput(tuple(texts[1:4]), max_length),
        ProbeInput(tuple(texts[4:12]), max_length),
        ProbeInput(tuple(joined), max_length),
    )


def texts_of(model: TaskModel, probe: ProbeInput) -> tuple[tuple[str, ...], ...]:
    """Return the texts of a probe as both processes tokenise them: of pairs, the parts that a sample has room for.

    Two long texts would be paired part by part in the fresh process too, and a text that is cut has other tokens to share.
    """
    given = model.family.probe_texts(probe.texts)
    if KINDS[model.task_type].reads != "text":
        return given
    limit = model.longest(probe.length)
    return tuple(tuple(part_of(text, limit) for text in row) if len(row) > 1 else row for row in given)


def answer(model: TaskModel, probes: Sequence[ProbeInput]) -> tuple[Tensor, ...]:
    """Run the probes in this process, and return the outputs that the fresh process must reproduce."""
    answers: list[Tensor] = []
    family = model.family
    for probe in probes:
        batch = family.probe_inputs(model, texts_of(model, probe), model.longest(probe.length)).to(model.device)
        with torch.inference_mode():
            answers.append(proven(model.outputs(batch.inputs).float(), batch.real).cpu())
    return tuple(answers)
