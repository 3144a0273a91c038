"""Trial repairs are judged on samples that they have not seen, as far as there are any."""

from __future__ import annotations

import math

import pytest
import torch

from pruning_core.arch.adapter import adapt
from pruning_core.evidence.calibration import TokenSet
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context, Evidence
from pruning_core.evidence.states import DenseStates
from pruning_core.measure.fidelity import Fidelity
from pruning_core.spec.prune import RecoverySpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.registry import family_of
from tests import tiny
from tests.unit.core.test_recovery import half_mask


def _context(samples):
    model = tiny.build_model("bert").requires_grad_(False)
    ids = torch.randint(5, 60, (samples, 9), generator=torch.Generator().manual_seed(0))
    batch = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.arange(samples), None)
    adapter, task = adapt(model), "text-classification"
    states = DenseStates(adapter, [batch], 2**30)
    evidence = Evidence(adapter, TokenSet((batch,), samples, 0, 0.0, ""), states, torch.float32)
    return Context(TaskModel(model, None, task, family_of(task), None, "float32"), evidence, StageClock(print), 0)


@pytest.mark.parametrize("samples", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["none", "weights"])
def test_a_divergence_is_a_number_however_few_samples_there_are(samples, kind):
    ctx = _context(samples)
    found = Fidelity(ctx, RecoverySpec(kind=kind)).divergence(half_mask(ctx.evidence.dense))
    assert math.isfinite(found)
    assert found > 0


def test_without_repair_it_is_the_mean_over_the_unseen_samples():
    ctx = _context(8)
    found = Fidelity(ctx, RecoverySpec(kind="none")).divergence(half_mask(ctx.evidence.dense))
    from pruning_core.arch.adapter import clone
    from pruning_core.arch.cut import slice_

    student = clone(ctx.task_model.model)
    slice_(student, half_mask(ctx.evidence.dense))
    batch = ctx.evidence.calibration.batches[0]
    ours, theirs = (model(**batch.inputs).logits[6:].log_softmax(-1) for model in (student, ctx.task_model.model))
    assert found == pytest.approx(float((theirs.exp() * (theirs - ours)).sum(-1).mean()), rel=1e-4)
