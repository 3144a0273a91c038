"""What a decoder does on blocks of text, as numbers that are kept: intervals are made of them later, without the models."""

from __future__ import annotations

import copy
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.measure.ledger.blocks import ClozePart
from pruning_core.spec.prune import TaskSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import UNCOUNTED

Numbers = dict[str, Any]
# Tokens of a batch: its logits are those of the vocabulary, in float32.
_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Judge:
    """The blocks of each text, and the cloze items made of them.

    Attributes:
        blocks: By the text's name.
        cloze: The ledger's items by the text's name; None where there are too few blocks.
    """

    blocks: Mapping[str, Sequence[array[int]]]
    cloze: Mapping[str, ClozePart | None]

    @classmethod
    def of(cls, dense: TaskModel, task: TaskSpec, blocks: Mapping[str, Sequence[array[int]]]) -> Judge:
        """Make the items."""
        return cls(blocks, {name: ClozePart.of(dense, task, name, own, 0) for name, own in blocks.items()})

    def judged(self, model: TaskModel) -> Numbers:
        """Run a model in bfloat16, as bundles of this model are stored.

        Returns:
            For each text the summed loss of each block, the likeliest next tokens, and for each cloze item whether the true
            continuation was surely the likeliest; and the seconds of all.
        """
        began = time.perf_counter()
        # A copy: a student shares parameters with the dense model, which has more students to make.
        student: Any = copy.deepcopy(model.model).to(torch.bfloat16)
        with torch.inference_mode():
            texts = {name: _text(student, own) for name, own in self.blocks.items()}
            for name, part in self.cloze.items():
                if part is not None:
                    lost = part.observe(model.with_model(student), lambda _step: None)
                    texts[name]["cloze"] = (lost[:, 0] < lost[:, 1:].amin(-1)).tolist()
        return {"texts": texts, "seconds": time.perf_counter() - began}


def _text(student: Any, blocks: Sequence[array[int]]) -> Numbers:
    lost: list[float] = []
    likeliest: list[list[int]] = []
    ids = torch.tensor([list(block) for block in blocks])
    for part in ids.split(max(1, _TOKENS // ids.shape[1])):
        logits = student(input_ids=part).logits[:, :-1].float()
        lost += _losses(logits, part[:, 1:]).sum(-1).tolist()
        likeliest += logits.argmax(-1).tolist()
    return {"lost": lost, "tokens": ids.shape[1] - 1, "likeliest": likeliest}


def _losses(logits: Tensor, truth: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.transpose(1, 2), truth, reduction="none", ignore_index=UNCOUNTED).double()
