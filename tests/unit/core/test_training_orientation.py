"""Weights that are stored input-major (GPT-2's) are trained as any others: constraints see them output-major."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pruning_core.patterns.project import LargestOfBlock
from pruning_core.run.pipeline import run
from pruning_core.spec.grammar import parse_pattern
from pruning_core.training.admm_penalty import Admm
from pruning_core.training.constraint import Moment
from pruning_core.training.masking import FixedSupport, SrSte
from pruning_core.training.recipe import prunable_weights
from tests import tiny
from tests.families import ARCHITECTURES

TWO_OF_FOUR = LargestOfBlock(parse_pattern("2:4"))
CONSTRAINTS = {
    "coupled": lambda weights: Admm(weights, TWO_OF_FOUR, rho=(0.1, 1.0), growth=1.5, penalty="coupled"),
    "decoupled": lambda weights: Admm(weights, TWO_OF_FOUR, rho=(0.1, 1.0), growth=1.5, penalty="decoupled"),
    "fixed": lambda weights: FixedSupport(weights, TWO_OF_FOUR),
    "sr-ste": lambda weights: SrSte(weights, TWO_OF_FOUR, 0.1),
}


def trained(kind, *, transposed):
    """Train a matrix towards a target under a constraint, in either way of keeping it; output-major."""
    generator = torch.Generator().manual_seed(0)
    values, target = torch.randn(6, 8, generator=generator), torch.randn(6, 8, generator=generator)
    stored = nn.Parameter(values.T.contiguous() if transposed else values.clone())
    with torch.no_grad():
        weight = stored.T if transposed else stored
    constraint, optimiser = CONSTRAINTS[kind]({"a": weight}), torch.optim.AdamW([stored], lr=0.05)
    constraint.begin(12)
    for step in range(12):
        moment = Moment(step, 12, 0.05, 0.05)
        constraint.before_forward(moment)
        optimiser.zero_grad()
        ((stored.T if transposed else stored) - target).square().sum().backward()
        constraint.before_step(moment)
        optimiser.step()
        constraint.after_step(moment)
    constraint.finish()
    return (stored.T if transposed else stored).detach()


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_constraint_does_the_same_whichever_way_a_matrix_is_kept(kind):
    plain = trained(kind, transposed=False)
    torch.testing.assert_close(trained(kind, transposed=True), plain, rtol=1e-6, atol=1e-6)
    assert ((plain.unflatten(1, (-1, 4)) != 0).sum(-1) <= 2).all()
    assert plain.count_nonzero() > 0


def test_what_is_done_to_a_prunable_weight_is_done_to_the_model():
    model = ARCHITECTURES["gpt2"].build()
    weights = prunable_weights(model)
    linear = model.transformer.h[0].mlp.c_fc
    weight = weights["transformer.h.0.mlp.c_fc"]
    assert weight.shape == linear.weight.T.shape
    with torch.no_grad():
        weight.mul_(0)
    assert linear.weight.count_nonzero() == 0


@pytest.mark.slow
@pytest.mark.parametrize("finish", ["fixed", "sr-ste"])
@pytest.mark.long
def test_gpt2_is_trained_to_a_pattern_and_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, finish):
    architecture = ARCHITECTURES["gpt2"]
    model, data = architecture.write(tmp_path / "model"), tiny.write_dataset(tmp_path / "data")
    training = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 32, "judgements": 2, "finish": finish}
    method = {"name": "admm-pattern", "pattern": "2:4", "tier": "trained", "training": training}
    spec = tiny.tiny_spec(model, data, method=method, target=None)
    monkeypatch.setattr("pruning_core.training.checkpoints.EVERY_S", 0.0)

    def interrupt(progress):
        if progress.stage == "train" and progress.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "out", device="cpu", scratch=tmp_path / "scratch", on_progress=interrupt)
    report = run(spec, tmp_path / "out", device="cpu", scratch=tmp_path / "scratch")
    run(spec, tmp_path / "whole", device="cpu")
    assert report.training.resumed_from > 0
    assert (report.pattern.violations, report.training.ending) == (0, "finished")
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert written[0] == written[1]
