import pytest
import torch

from pruning_core.linalg.cg import conjugate_gradient
from pruning_core.linalg.cholesky import cholesky_solve
from pruning_core.linalg.lsmr import lsmr
from pruning_core.linalg.solution import relative_residual


def _spd(k, condition, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(k, k, generator=generator, dtype=torch.float64))
    return q @ torch.logspace(0, -torch.log10(torch.tensor(float(condition))).item(), k, dtype=torch.float64).diag() @ q.T


def _cg(A, b, x0):
    return conjugate_gradient(A, b, x0, tolerance=1e-10, max_iterations=2000, jacobi=False)


def _pcg(A, b, x0):
    return conjugate_gradient(A, b, x0, tolerance=1e-10, max_iterations=2000, jacobi=True)


def _lsmr(A, b, x0):
    return lsmr(A, b, x0, damp=0.0, tolerance=1e-12, max_iterations=20_000)


SOLVERS = {"cg": _cg, "pcg": _pcg, "cholesky": cholesky_solve, "lsmr": _lsmr}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("k", "d", "condition"), [(1, 1, 1), (8, 3, 10), (40, 5, 1e3), (24, 1, 1e4)])
def test_solvers_agree_with_the_dense_solve(solver, k, d, condition):
    A = _spd(k, condition)
    b = torch.randn(k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    solution = SOLVERS[solver](A, b, torch.zeros_like(b))
    assert solution.status == "converged"
    torch.testing.assert_close(solution.value, torch.linalg.solve(A, b), rtol=1e-4, atol=1e-5)
    assert relative_residual(A, solution.value, b) < 1e-6


@pytest.mark.parametrize("solver", ["cg", "pcg"])
def test_iterations_start_from_the_given_point(solver):
    A, x = _spd(12, 100), torch.randn(12, 4, dtype=torch.float64)
    assert SOLVERS[solver](A, A @ x, x).iterations == 0


def test_jacobi_removes_a_bad_scaling():
    scales = torch.logspace(0, 4, 30, dtype=torch.float64)
    A = scales[:, None] * _spd(30, 10) * scales
    b = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    plain, jacobi = (
        conjugate_gradient(A, b, torch.zeros_like(b), tolerance=1e-6, max_iterations=1000, jacobi=flag)
        for flag in (False, True)
    )
    assert jacobi.status == "converged"
    assert jacobi.iterations * 3 < plain.iterations


def test_support_is_the_restricted_solve_of_each_column():
    A = _spd(15, 50)
    generator = torch.Generator().manual_seed(2)
    b = torch.randn(15, 6, dtype=torch.float64, generator=generator)
    support = torch.rand(15, 6, generator=generator) > 0.5
    found = conjugate_gradient(
        A, b, torch.zeros_like(b), tolerance=1e-10, max_iterations=500, jacobi=True, support=support
    ).value
    for column in range(6):
        rows = support[:, column]
        expected = torch.linalg.solve(A[rows][:, rows], b[rows, column])
        torch.testing.assert_close(found[rows, column], expected, rtol=1e-6, atol=1e-8)
        assert not found[~rows, column].any()


def test_columns_that_converged_are_not_moved_by_the_others():
    A = torch.diag(torch.tensor([1.0, 1e-3, 1e3], dtype=torch.float64))
    easy, hard = torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 1, 1])
    together = _cg(A, torch.stack([easy, hard], 1).double(), torch.zeros(3, 2, dtype=torch.float64)).value
    alone = _cg(A, easy[:, None].double(), torch.zeros(3, 1, dtype=torch.float64)).value
    torch.testing.assert_close(together[:, :1], alone, rtol=0, atol=0)


@pytest.mark.parametrize("solver", ["cg", "pcg", "cholesky"])
def test_an_indefinite_matrix_is_a_status_not_an_exception(solver):
    A = torch.diag(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64))
    b = torch.ones(3, 1, dtype=torch.float64)
    solution = SOLVERS[solver](A, b, torch.full_like(b, 0.5))
    assert solution.status == "breakdown"
    assert torch.isfinite(solution.value).all()


def test_a_singular_gram_is_solved_with_jitter():
    X = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    X = torch.cat([X, X[:, :1]], 1)  # a duplicate unit
    G, W = X.T @ X, torch.randn(5, 2, dtype=torch.float64)
    solution = cholesky_solve(G, G @ W, torch.zeros_like(W))
    assert solution.status == "converged"
    torch.testing.assert_close(X @ solution.value, X @ W, rtol=1e-4, atol=1e-4)


def test_running_out_of_iterations_is_said():
    A = _spd(40, 1e6)
    b = torch.randn(40, 1, dtype=torch.float64)
    assert (
        conjugate_gradient(A, b, torch.zeros_like(b), tolerance=1e-12, max_iterations=3, jacobi=False).status
        == "max_iterations"
    )


def test_damped_lsmr_is_the_damped_least_squares_solution():
    A = _spd(10, 100)
    b = torch.randn(10, 2, dtype=torch.float64)
    found = lsmr(A, b, torch.zeros_like(b), damp=1.0, tolerance=1e-13, max_iterations=5000).value
    expected = torch.linalg.solve(A.T @ A + torch.eye(10, dtype=torch.float64), A.T @ b)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_double_solvers_on_float32_inputs_stay_float32():
    A, b = _spd(8, 10).float(), torch.randn(8, 2)
    assert cholesky_solve(A, b, torch.zeros_like(b)).value.dtype == torch.float32
