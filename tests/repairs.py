"""Calibration batches, evidence and masks for tests of repairs."""

from __future__ import annotations

import torch

from pruning_core.arch.adapter import adapt
from pruning_core.arch.masks import Mask
from pruning_core.evidence.calibration import Batch, TokenSet
from pruning_core.evidence.context import Evidence
from pruning_core.evidence.states import DenseStates


def batches(count=4, n=6, length=12):
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        ids = torch.randint(5, 60, (n, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, 8:], ids[0, 8:] = 0, 0
        found.append(Batch({"input_ids": ids, "attention_mask": mask}, torch.arange(n) + n * index, None))
    return found


def evidence_of(model, own, memory=2**30):
    adapter = adapt(model)
    rows = sum(len(batch.rows) for batch in own)
    return Evidence(adapter, TokenSet(tuple(own), rows, 0, 0.0, ""), DenseStates(adapter, own, memory), torch.float32)


def halves(adapter):
    """Keep every other unit of each sublayer, and all where more must stay."""
    return Mask(tuple(torch.arange(group.size) % (1 if group.least else 2) == 0 for group in adapter.groups))
