"""One matrix under a pattern, and all of a model's: statistics, refit and driver against dense solves on explicit data."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.patterns.project import LargestOfBlock
from pruning_core.recovery.matrix_fit import Matrix, ScaledProblem, choose, fit_matrix
from pruning_core.spec.grammar import BlockPattern
from pruning_core.stats.gram import Gram
from pruning_core.stats.input_sums import InputSums
from tests.oracles import gram_of

TWO_OF_FOUR = LargestOfBlock(BlockPattern(1, 4, 2))
SELECTIONS = ("admm", "sparsegpt", "wanda", "magnitude")


def inputs(rows: int, k: int, seed: int = 0) -> torch.Tensor:
    """Correlated inputs with means far from zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(k, k, generator=generator, dtype=torch.float64)
    return torch.randn(rows, k, generator=generator, dtype=torch.float64) @ mixing + 3 * torch.arange(k)


def gram(X: torch.Tensor, B: torch.Tensor) -> Gram:
    return gram_of(torch.cat([X, torch.ones_like(X[:, :1])], dim=1), B)


def matrix(k: int = 16, d: int = 6, *, bias: bool = True, noise: float = 0.0, rows: int = 400) -> tuple[Matrix, torch.Tensor]:
    """A matrix whose target is its own dense output, and its inputs."""
    generator = torch.Generator().manual_seed(7)
    X = inputs(rows, k)
    W = torch.randn(k, d, generator=generator, dtype=torch.float64)
    b = torch.randn(d, generator=generator, dtype=torch.float64)
    B = X @ W + b * bias
    held_out = rows - rows // 4
    B[:held_out] += noise * torch.randn(held_out, d, generator=generator, dtype=torch.float64)
    fit, judge = gram(X[:held_out], B[:held_out]), gram(X[held_out:], B[held_out:])
    return Matrix("m", fit, judge, W.float(), b.float() if bias else None), X


@pytest.mark.parametrize("bias", [True, False])
def test_the_refit_is_the_best_ridge_solution_on_the_support_with_its_bias(bias):
    own, X = matrix(bias=bias)
    options = AdmmPattern(refit_steps=400, damping=1e-3)
    support = choose(own, "admm", TWO_OF_FOUR, options).support
    weights, fitted_bias, fit = fit_matrix(own, TWO_OF_FOUR, options, refit=True)
    B = X @ own.weights.double() + (0 if own.bias is None else own.bias.double())
    mean_x, mean_b = (X.mean(0), B.mean(0)) if bias else (torch.zeros(16), torch.zeros(6))
    Xc, Bc = X - mean_x, B - mean_b
    ridge = 1e-3 * float(Xc.square().sum(0).mean())
    for column in range(6):
        kept = support[:, column].nonzero().flatten()
        A = Xc[:, kept].T @ Xc[:, kept] + ridge * torch.eye(len(kept))
        rhs = Xc[:, kept].T @ Bc[:, column] + ridge * own.weights.double()[kept, column]
        torch.testing.assert_close(weights[kept, column], torch.linalg.solve(A, rhs), rtol=5e-3, atol=5e-3)
        assert (weights[~support[:, column], column] == 0).all()
    if bias:
        torch.testing.assert_close(fitted_bias, mean_b - mean_x @ weights, rtol=1e-4, atol=1e-3)
    else:
        assert fitted_bias is None
    assert fit.residual_after < fit.residual_before


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_selection_satisfies_the_pattern_and_gains_by_the_refit(selection):
    own, _ = matrix()
    weights, _, fit = fit_matrix(own, TWO_OF_FOUR, AdmmPattern(selection=selection), refit=True)
    assert ((weights != 0).unflatten(0, (-1, 4)).sum(1) == 2).all()
    assert fit.residual_after < fit.residual_before


def test_admm_leaves_less_residual_than_its_peers():
    own, _ = matrix(k=64, d=32, rows=800)
    left = {
        selection: fit_matrix(own, TWO_OF_FOUR, AdmmPattern(selection=selection), refit=True)[2].residual_after
        for selection in SELECTIONS
    }
    assert left["admm"] == min(left.values())
    assert left["admm"] < 0.9 * left["wanda"]


def test_a_refit_that_the_held_out_samples_do_not_like_is_rejected():
    own, _ = matrix(rows=20, noise=200.0)
    weights, bias, fit = fit_matrix(own, TWO_OF_FOUR, AdmmPattern(damping=1e-6), refit=True)
    assert fit.status == "rejected"
    assert fit.residual_after == fit.residual_before
    kept = weights != 0
    torch.testing.assert_close(weights[kept], own.weights.double()[kept])
    assert bias is own.bias


def test_without_refit_the_dense_weights_stay_on_the_support():
    own, _ = matrix()
    weights, bias, fit = fit_matrix(own, TWO_OF_FOUR, AdmmPattern(selection="wanda"), refit=False)
    expected = own.weights * TWO_OF_FOUR.support((own.weights * (own.fit + own.judge).G.diagonal()[:-1, None].sqrt()).square())
    torch.testing.assert_close(weights.float(), expected)
    assert bias is own.bias
    assert (fit.refit_steps, fit.status) == (0, "skipped")


def test_numbers_that_are_none_are_a_failure_and_the_weights_stay_finite():
    own, _ = matrix()
    own.fit.G[0, 0] = torch.nan
    weights, _, fit = fit_matrix(own, TWO_OF_FOUR, AdmmPattern(), refit=True)
    assert fit.status == "non_finite"
    assert weights.isfinite().all()


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_residual_after_is_that_of_the_weights_that_are_delivered(selection):
    own, X = matrix(rows=60, noise=2.0)
    weights, bias, fit = fit_matrix(own, TWO_OF_FOUR, AdmmPattern(selection=selection), refit=True)
    held_out = X[45:]
    B = held_out @ own.weights.double() + own.bias.double()
    found = (B - held_out @ weights - bias).square().sum() / B.square().sum()
    assert fit.residual_after == pytest.approx(float(found), rel=1e-4)
    unrepaired = fit_matrix(own, TWO_OF_FOUR, AdmmPattern(selection=selection), refit=False)
    assert fit.residual_after < unrepaired[2].residual_after


def test_a_refit_that_leaves_the_stored_range_is_a_breakdown_and_the_weights_stay_finite():
    own, _ = matrix()
    huge = own.fit.C * 1e42, own.judge.C * 1e42  # targets that float32 weights cannot give
    fit, judge = (replace(gram, C=C, energy=gram.energy * 1e84) for gram, C in zip((own.fit, own.judge), huge, strict=True))
    weights, _, found = fit_matrix(replace(own, fit=fit, judge=judge), TWO_OF_FOUR, AdmmPattern(), refit=True)
    assert found.status in ("breakdown", "non_finite")
    assert weights.float().isfinite().all()


def test_an_input_that_is_always_zero_does_no_harm():
    own, _ = matrix()
    own.fit.G[3], own.fit.G[:, 3], own.fit.C[3] = 0, 0, 0
    own.judge.G[3], own.judge.G[:, 3], own.judge.C[3] = 0, 0, 0
    system = ScaledProblem.of(own.fit, own.weights, 0.01, centred=True)
    assert system.H.isfinite().all()
    assert fit_matrix(own, TWO_OF_FOUR, AdmmPattern(), refit=True)[0].isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
def test_input_moments_give_the_statistics_of_fitting_the_dense_outputs(bias):
    X, Z = inputs(50, 5, 1).float(), inputs(50, 5, 2).float()
    generator = torch.Generator().manual_seed(3)
    W, b = torch.randn(5, 3, generator=generator), torch.randn(3, generator=generator) if bias else None
    sums = InputSums(5, torch.float32, torch.device("cpu"))
    for start in (0, 20):
        rows = torch.arange(start, start + (20 if start == 0 else 30))
        sums.add_(X, Z, rows)
    found, B = sums.problem(W, b), Z @ W + (0 if b is None else b)
    expected = gram(X.double(), B.double())
    for name in ("G", "C"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-2)
    assert found.energy == pytest.approx(expected.energy, rel=1e-4)
    assert found.tokens == 50
    twice = copy.copy(sums).problem(W, b)
    torch.testing.assert_close(twice.C, found.C)
