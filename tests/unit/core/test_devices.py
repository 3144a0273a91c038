"""What computes on a GPU gives what a CPU gives. On a machine without one only the CPU's half runs (`make gpu` has the other).

Needs no fixture of ours, so that it runs where little is installed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.evidence.calibration import Batch, TokenSet
from pruning_core.evidence.context import Evidence
from pruning_core.evidence.states import DenseStates
from pruning_core.measure.latency import measure_latency
from pruning_core.measure.sparse_products import FormRefused, proven_form
from pruning_core.models.load import load_task_model
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import LatencySpec, RecoverySpec
from pruning_core.stats.gram import GramSums
from tests import tiny

GPU = torch.cuda.is_available()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not GPU, reason="no GPU here"))]
on_devices = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("bert"), "bert")


def half(groups) -> Mask:
    generator = torch.Generator().manual_seed(0)
    kept = [torch.zeros(group.size, dtype=torch.bool) for group in groups]
    for own in kept:
        own[torch.randperm(len(own), generator=generator)[: len(own) // 2]] = True
    return Mask(tuple(kept))


def batches(count: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        ids = torch.randint(5, 60, (8, 12), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, 8:], ids[0, 8:] = 0, 0
        found.append(Batch({"input_ids": ids, "attention_mask": mask}, torch.arange(8) + 8 * index, None))
    return found


@on_devices
def test_slicing_equals_masking(device: str):
    model = tiny.build_model("bert").to(device)
    adapter = adapt(model)
    mask, inputs = half(adapter.groups), batches(1)[0].to(torch.device(device)).inputs
    sliced, masked = clone(model), clone(model)
    slice_(sliced, mask)
    with torch.no_grad():
        for sublayer, kept in zip(adapt(masked).sublayers, mask.kept, strict=True):
            sublayer.output.weight.mul_(kept.repeat_interleave(sublayer.unit_width).to(device))
        torch.testing.assert_close(sliced(**inputs).logits, masked(**inputs).logits, rtol=1e-4, atol=1e-5)


@on_devices
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_grams_are_those_of_float64(device: str, dtype: torch.dtype, tolerance: float):
    """TF32 in place of float32 would show here; so would sums in bfloat16, whose error grows with the rows."""
    generator = torch.Generator().manual_seed(0)
    X, B = torch.randn(5000, 48, generator=generator), torch.randn(5000, 16, generator=generator)
    sums = GramSums(48, 16, dtype, torch.device(device))
    for rows in torch.arange(5000).split(1100):
        sums.add_(X.to(device), B.to(device), rows.to(device))
    found, ones = sums.result(), torch.cat([X.double(), torch.ones(5000, 1).double()], 1)
    torch.testing.assert_close(found.G.cpu(), ones.T @ ones, rtol=tolerance, atol=tolerance * 5000**0.5)
    torch.testing.assert_close(found.C.cpu(), ones.T @ B.double(), rtol=tolerance, atol=tolerance * 5000**0.5)
    assert found.tokens == 5000


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repairs_are_those_of_a_cpu(device: str, dtype: torch.dtype):
    dense, found = tiny.build_model("bert"), []
    for place in ("cpu", device):
        model = clone(dense).to(place)
        adapter, tokens = adapt(model), TokenSet(tuple(batches()), 48, 0, 0.0, "")
        evidence = Evidence(adapter, tokens, DenseStates(adapter, tokens.batches, 2**30), dtype)
        student = clone(model)
        reports = prune_and_recover_(
            adapt(student), half(adapter.groups), evidence, RecoverySpec(), on_sublayer=lambda _i: None
        )
        with torch.no_grad():
            outputs = student(**tokens.batches[0].to(torch.device(place)).inputs).logits.cpu()
        found.append(([report.residual_after for report in reports], outputs))
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    assert found[1][0] == pytest.approx(found[0][0], rel=tolerance, abs=tolerance)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=10 * tolerance, atol=10 * tolerance)


@on_devices
def test_paged_weights_give_what_whole_ones_give(device: str, checkpoint: Path, tmp_path: Path):
    whole, paged = (
        load_task_model(checkpoint, "text-classification", torch.device(device), pages=pages) for pages in (None, tmp_path)
    )
    inputs = batches(1)[0].to(torch.device(device)).inputs
    with torch.no_grad():
        assert torch.equal(whole.outputs(inputs), paged.outputs(inputs))
    assert adapt(paged.model).sublayers[0].output.weight.is_meta


@on_devices
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_of_two_weights_in_four(device: str, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(128, 128, generator=generator) * (torch.arange(128) % 4 < 2)
    weight, inputs = (own.to(device, dtype) for own in (weight, torch.randn(8, 128, generator=generator)))
    if device == "cpu":
        with pytest.raises(FormRefused, match="GPU"):
            proven_form(weight, None, inputs, "2:4")
        return
    with torch.inference_mode():
        sparse, _ = proven_form(weight, None, inputs, "2:4")
    assert sparse.layout != torch.strided or "SemiStructured" in type(sparse).__name__


@on_devices
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_latency_is_measured_in_half_types(device: str, dtype: torch.dtype, checkpoint: Path):
    dense = load_task_model(checkpoint, "text-classification", torch.device(device))
    sliced = clone(dense.model)
    slice_(sliced, half(adapt(dense.model).groups))
    models = [dense.with_model(clone(own).to(dtype)) for own in (dense.model, sliced)]
    spec = LatencySpec(batch=2, length=16, repeats=3)
    report = measure_latency(*models, spec, torch.Generator().manual_seed(0), lambda _repeat: None)
    assert min(report.dense, report.pruned) > 0
    assert report.device.startswith(device)


@on_devices
@pytest.mark.parametrize("method", ["fisher-cg", "admm-pattern, trained"])
@pytest.mark.long
def test_a_whole_job_and_its_training(device: str, method: str, checkpoint: Path, tmp_path: Path):
    data, (name, _, tier) = tiny.write_dataset(tmp_path / "sst2"), method.partition(", ")
    chosen = {"name": name} | ({"tier": tier, "training": {"epochs": 1, "max_train_rows": 64}} if tier else {})
    target = {"target": {"metric": "pattern", "sparsity": 0.5}} if tier else {}
    report = run(tiny.tiny_spec(checkpoint, data, method=chosen, **target), tmp_path / "bundle", device=device)
    assert report.device.startswith(device)
    assert report.target.met
    assert report.acceptance is not None
    assert (report.training is not None) == bool(tier)
