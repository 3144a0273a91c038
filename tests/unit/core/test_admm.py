from __future__ import annotations

import itertools

import pytest
import torch

from pruning_core.linalg.admm import Schedule, find_support
from pruning_core.linalg.obs import prune_by_obs
from pruning_core.patterns.project import LargestFraction, LargestOfBlock
from pruning_core.spec.grammar import BlockPattern

TWO_OF_FOUR = LargestOfBlock(BlockPattern(1, 4, 2))


def problem(k: int, d: int, seed: int, rows: int = 200) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Correlated inputs, scaled to unit diagonal: H, R and the dense weights that R is made of."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(k, k, generator=generator, dtype=torch.float64)
    X = torch.randn(rows, k, generator=generator, dtype=torch.float64) @ mixing
    H = X.T @ X
    scale = H.diagonal().sqrt()
    H = H / torch.outer(scale, scale)
    W = torch.randn(k, d, generator=generator, dtype=torch.float64)
    return H, H @ W, W


def solved(H: torch.Tensor, R: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """The best weights on a support, column by column."""
    best = torch.zeros_like(R)
    for column in range(R.shape[1]):
        kept = support[:, column].nonzero().flatten()
        best[kept, column] = torch.linalg.solve(H[kept][:, kept], R[kept, column])
    return best


def loss(H: torch.Tensor, R: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    return 0.5 * (W * (H @ W)).sum(0) - (W * R).sum(0)


class TestAdmm:
    def test_a_step_is_the_papers(self):
        H, R, dense = problem(8, 3, 0)
        found = find_support(H, R, dense, TWO_OF_FOUR, Schedule(rho=0.3, iterations=1))
        first = dense * TWO_OF_FOUR.support(dense.square())
        W = torch.linalg.solve(H + 0.3 * torch.eye(8, dtype=H.dtype), R + 0.3 * first)
        torch.testing.assert_close(found.value, W * TWO_OF_FOUR.support(W.square()))

    @pytest.mark.parametrize("seed", range(4))
    def test_supports_come_close_to_the_best_of_all(self, seed):
        H, R, dense = problem(8, 6, seed)
        pairs = list(itertools.combinations(range(4), 2))
        best = torch.full((6,), torch.inf, dtype=H.dtype)
        for low, high in itertools.product(pairs, pairs):
            support = torch.zeros(8, 6, dtype=torch.bool)
            support[[*low, *(4 + i for i in high)]] = True
            best = torch.minimum(best, loss(H, R, solved(H, R, support)))
        found = find_support(H, R, dense, TWO_OF_FOUR, Schedule(iterations=60, growth=1.2))
        by_size = TWO_OF_FOUR.support(dense.square())
        floor = loss(H, R, dense).sum()
        ours, theirs = (loss(H, R, solved(H, R, support)).sum() - floor for support in (found.support, by_size))
        assert ours <= 1.5 * (best.sum() - floor)
        assert ours < theirs

    @pytest.mark.parametrize("projection", [TWO_OF_FOUR, LargestFraction(0.7)])
    def test_layers_lose_less_than_by_the_size_of_the_weights(self, projection):
        H, R, dense = problem(64, 32, 5, rows=400)
        found = find_support(H, R, dense, projection, Schedule())
        floor = loss(H, R, dense).sum()
        lost = [
            float(loss(H, R, solved(H, R, support)).sum() - floor)
            for support in (found.support, projection.support(dense.square()))
        ]
        assert lost[0] < 0.9 * lost[1]

    def test_the_penalty_makes_both_halves_agree_and_the_support_stand_still(self):
        H, R, dense = problem(16, 4, 2)
        found = find_support(H, R, dense, TWO_OF_FOUR, Schedule(iterations=400))
        assert found.status == "converged"
        assert found.iterations < 400
        short = find_support(H, R, dense, TWO_OF_FOUR, Schedule(iterations=4))
        assert short.status == "max_iterations"
        assert found.primal < short.primal

    def test_a_matrix_without_a_factor_is_a_status(self):
        H = torch.eye(8, dtype=torch.float64)
        H[0, 1] = H[1, 0] = 5.0
        dense = torch.ones(8, 2, dtype=torch.float64)
        found = find_support(H, dense, dense, TWO_OF_FOUR, Schedule())
        assert found.status == "breakdown"
        assert torch.equal(found.value, dense * found.support)


class TestObs:
    @pytest.mark.parametrize("group", [4, 8, 16])
    def test_each_input_is_removed_as_the_brain_surgeon_would(self, group):
        H, _, dense = problem(16, 5, 3)
        pruned = prune_by_obs(H, dense, TWO_OF_FOUR, group)
        assert pruned is not None
        torch.testing.assert_close(pruned.value, by_explicit_inverses(H, dense, pruned.support))

    def test_groups_are_chosen_by_what_their_removal_costs(self):
        H, _, dense = problem(16, 5, 4)
        pruned = prune_by_obs(H, dense, TWO_OF_FOUR, 4)
        assert pruned is not None
        for i in range(4):  # within the first group the cost is that of the Hessian of what is left
            left = torch.linalg.inv(H[i:, i:])[0, 0]
            cost = dense[i].square() / left
            others = torch.stack([dense[j].square() / torch.linalg.inv(H[j:, j:])[0, 0] for j in range(4)])
            assert torch.equal(pruned.support[i], (others > cost).sum(0) < 2)

    def test_a_hessian_without_a_factor_gives_nothing(self):
        assert prune_by_obs(-torch.eye(4), torch.ones(4, 2), TWO_OF_FOUR, 4) is None


def by_explicit_inverses(H: torch.Tensor, W: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Optimal brain surgeon with a fresh inverse of the remaining inputs at every step."""
    value = W.clone()
    for i in range(len(W)):
        inverse = torch.linalg.inv(H[i:, i:])
        gone = value[i] * ~support[i]
        value[i:] -= torch.outer(inverse[:, 0], gone / inverse[0, 0])
    return value
