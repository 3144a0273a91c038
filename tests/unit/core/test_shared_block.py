"""One block that runs for all layers (ALBERT): its price, scores, repair and times."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.masks import Mask
from pruning_core.measure import latency_table
from pruning_core.models.load import load_task_model
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.recovery.streams import Streams
from pruning_core.spec.prune import LatencySpec, RecoverySpec
from pruning_core.stats.fisher import loss_sum, mask_statistics
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.registry import family_of
from tests.families import ARCHITECTURES
from tests.oracles import gram_of, masked
from tests.repairs import batches, evidence_of, halves


def test_one_block_for_all_layers_is_one_set_of_units_that_every_layer_pays_for():
    model = ARCHITECTURES["albert"].build()
    adapter, bert = adapt(model), adapt(ARCHITECTURES["bert"].build())
    assert len(adapter.groups) == 2
    for own, other in zip(adapter.groups, bert.groups, strict=False):
        assert (own.times, own.macs_per_unit(10)) == (3, 3 * other.macs_per_unit(10))
        assert own.params_per_unit == other.params_per_unit


def test_the_gradient_of_a_mask_of_a_shared_block_is_the_sum_over_the_layers():
    model, own = ARCHITECTURES["albert"].build().requires_grad_(False), batches(2)
    adapter = adapt(model)
    source = TaskModel(model, None, "text-classification", family_of("text-classification"), Path(), "float32")
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    labelled = [replace(batch, labels=labels) for batch in own]
    found = mask_statistics(
        source,
        adapter,
        labelled,
        loss_sum("text-classification"),
        samples=12,
        dtype=torch.float32,
        keep_gradients=True,
        on_batch=lambda _done: None,
    )
    wanted = [torch.zeros(group.size, dtype=torch.float64) for group in adapter.groups]
    for batch in labelled:
        for row in range(6):
            masks = tuple(torch.ones(group.size, requires_grad=True) for group in adapter.groups)
            with masked(adapter, masks):
                logits = model(**{name: values[row : row + 1] for name, values in batch.inputs.items()}).logits
            loss = torch.nn.functional.cross_entropy(logits, labels[row : row + 1])
            for place, gradient in enumerate(torch.autograd.grad(loss, masks)):
                wanted[place] += gradient.double().square()
    for statistic, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(statistic.fisher, reference, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(statistic.gradients.double().square().sum(0), reference, rtol=1e-3, atol=1e-7)


def test_one_fit_of_a_shared_block_is_to_the_states_of_all_layers():
    model, own = ARCHITECTURES["albert"].build(head="base"), batches(1)
    evidence = evidence_of(model, own)
    student, mask = adapt(clone(model)), halves(evidence.dense)
    block, given, gave = evidence.dense.blocks[0], [], []
    with ExitStack() as stack, torch.no_grad():
        stack.callback(block.register_forward_pre_hook(lambda _module, args: given.append(args[0])).remove)
        out = evidence.dense.sublayers[0].output
        stack.callback(out.register_forward_hook(lambda _module, args, output: gave.append((args[0], output))).remove)
        model(**own[0].inputs)
    with torch.no_grad(), evidence.states.cache() as cache:
        streams = Streams(evidence, cache, samples=6, first_judge=5)
        student.sublayers[0].slice_(mask.indices(0))
        fit, _ = streams.gather(0, evidence.dense.sublayers[0], student.sublayers[0], 0)
    rows = (own[0].inputs["attention_mask"].bool() & (torch.arange(6) < 5)[:, None]).flatten()
    columns = mask.kept[0].repeat_interleave(student.sublayers[0].unit_width)
    X = torch.cat([read.flatten(0, 1)[rows][:, columns] for read, _ in gave])
    B = torch.cat([output.flatten(0, 1)[rows] for _, output in gave])
    assert len(gave) == 3
    assert fit.tokens == len(X)
    C = gram_of(torch.cat([X, torch.ones(len(X), 1)], 1), B).C
    torch.testing.assert_close(fit.C, C, rtol=1e-2, atol=2e-3 * float(C.abs().max()))


def test_the_repair_of_a_shared_block_brings_the_cut_model_nearer_to_the_dense_one():
    model, own = ARCHITECTURES["albert"].build(head="base"), batches(8)
    mask = Mask(tuple(torch.arange(group.size) % 4 != 0 for group in adapt(model).groups))
    real, errors = own[0].inputs["attention_mask"].bool(), []
    for kind in ("none", "weights"):
        student = clone(model)
        prune_and_recover_(
            adapt(student), mask, evidence_of(model, own), RecoverySpec(kind=kind), on_sublayer=lambda _done: None
        )
        with torch.no_grad():
            apart = model(**own[0].inputs).last_hidden_state - student(**own[0].inputs).last_hidden_state
        errors.append(float(apart[real].square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_a_shared_block_takes_its_time_in_every_layer(tmp_path, monkeypatch):
    model = ARCHITECTURES["albert"].write(tmp_path / "model")
    dense = load_task_model(model, "text-classification", torch.device("cpu"))
    ran = []

    def fastest(forward, _device):
        forward()
        ran.append(forward)
        return 1.0

    monkeypatch.setattr(latency_table, "_fastest", fastest)
    spec = LatencySpec(batch=1, length=8, repeats=3, threads=1)
    found = latency_table.latency_model(dense, adapt(dense.model), spec, None)
    assert [curve[-1][1] for curve in found.curves] == [3.0, 3.0]
    assert len(ran) > 2
