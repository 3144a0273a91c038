"""Findings of two models, compared as an evaluation compares them."""

from __future__ import annotations

import torch

from pruning_core.measure.certainty import compared
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import Judged
from pruning_core.tasks.registry import family_of
from pruning_core.tasks.scoring import Classes


def spec_of(kind, metric, **fields):
    columns = {"text": ["t", "u"][: 1 if KINDS[kind].optional else len(KINDS[kind].inputs)]} | (
        {"label": "y"} if KINDS[kind].labels is not None else {}
    )
    task = {"type": kind, "dataset": "d", "columns": columns, "metric": metric}
    return PruneSpec.model_validate({"model": "m", "task": task, "sparsity": 0.5} | fields)


def judge(kind, metric, dense, pruned, **fields):
    spec = spec_of(kind, metric, **fields)
    judged = Judged(dense, pruned, 1, {})
    return compared(spec, judged, family_of(kind).scored(spec.task, judged))


def logits_of(found, classes=2):
    return torch.nn.functional.one_hot(torch.as_tensor(found), classes).float()


def classes_of(wanted, dense, pruned, classes=2):
    truth = torch.as_tensor(wanted)
    return Classes(logits_of(dense, classes), truth), Classes(logits_of(pruned, classes), truth)
