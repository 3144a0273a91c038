from typing import get_args

import pytest
import torch

from pruning_core.linalg.cg import conjugate_gradient
from pruning_core.linalg.cholesky import cholesky_solve
from pruning_core.linalg.lsmr import lsmr
from pruning_core.linalg.solution import SolveStatus, is_failure


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
    assert float((b - A @ solution.value).norm() / b.norm()) < 1e-6


@pytest.mark.parametrize("solver", ["cg", "pcg"])
def test_iterations_start_from_the_given_point(solver):
    A, x = _spd(12, 100), torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
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
    G, W = X.T @ X, torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    solution = cholesky_solve(G, G @ W, torch.zeros_like(W))
    assert (solution.status, solution.iterations) == ("jittered", 0)
    assert 0 < solution.jitter <= 1e-6
    torch.testing.assert_close(X @ solution.value, X @ W, rtol=1e-4, atol=1e-4)


def test_a_factorisation_that_gives_another_answer_is_said_to_stagnate():
    """The Gram of a duplicate unit has no solution where the right-hand sides tell the two apart."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    X = torch.cat([X, X[:, :1]], 1)
    rhs = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    solution = cholesky_solve(X.T @ X, rhs, torch.zeros_like(rhs))
    assert solution.status == "stagnated"
    residual, start = (rhs - X.T @ X @ solution.value).norm(), rhs.norm()
    assert residual <= start, "the best iterate, which may be the start"


def test_a_recurrence_that_parts_from_the_residual_is_said_to_stagnate():
    """Float32 has seven digits: a tolerance below them is reached by the recurrence alone."""
    A = _spd(30, 1e5).float()
    b = torch.randn(30, 2, generator=torch.Generator().manual_seed(4))
    solution = conjugate_gradient(A, b, torch.zeros_like(b), tolerance=1e-9, max_iterations=5000, jacobi=False)
    assert solution.status == "stagnated"
    assert solution.iterations < 5000
    assert (b - A @ solution.value).norm() < 0.1 * b.norm()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("where", ["A", "rhs", "x0"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_a_status(solver, where, bad):
    given = {"A": _spd(6, 10), "rhs": torch.ones(6, 2, dtype=torch.float64), "x0": torch.zeros(6, 2, dtype=torch.float64)}
    given[where][2, 1] = bad
    solution = SOLVERS[solver](given["A"], given["rhs"], given["x0"])
    assert (solution.status, solution.iterations, solution.failed) == ("non_finite", 0, True)
    assert solution.value.isfinite().all()


@pytest.mark.parametrize("solver", ["cg", "pcg"])
def test_a_column_that_breaks_down_keeps_its_best_iterate_and_harms_no_other(solver):
    A = torch.diag(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64))
    b = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.3]], dtype=torch.float64)  # the first column never meets the third axis
    solution = SOLVERS[solver](A, b, torch.zeros_like(b))
    assert solution.status == "breakdown"
    torch.testing.assert_close(solution.value[:, 0], torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))

    def energy(x):
        return float(x @ A @ x / 2 - x @ b[:, 1])

    assert energy(solution.value[:, 1]) <= 0, "that of the start"


def test_a_step_out_of_range_is_not_taken():
    A = torch.diag(torch.tensor([1e-38, 1.0]))
    b = torch.tensor([[3e38], [1.0]])
    solution = conjugate_gradient(A, b, torch.zeros_like(b), tolerance=1e-6, max_iterations=50, jacobi=False)
    assert solution.status == "breakdown"
    assert solution.value.isfinite().all()


def test_an_iterate_that_is_worse_than_the_start_is_not_returned():
    """One step of LSMR or CG is better than none; a start that solves the system stays."""
    A, x = _spd(20, 1e8), torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for steps in (1, 2, 5):
        found = conjugate_gradient(A, A @ x, 0 * x, tolerance=1e-14, max_iterations=steps, jacobi=False)
        energies = [float((own * (A @ own)).sum() / 2 - (own * (A @ x)).sum()) for own in (found.value, 0 * x)]
        assert found.status == "max_iterations"
        assert energies[0] < energies[1]


def test_every_status_is_an_answer_or_a_failure():
    assert [status for status in get_args(SolveStatus) if is_failure(status)] == ["breakdown", "non_finite"]


def test_running_out_of_iterations_is_said():
    A = _spd(40, 1e6)
    b = torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    assert (
        conjugate_gradient(A, b, torch.zeros_like(b), tolerance=1e-12, max_iterations=3, jacobi=False).status
        == "max_iterations"
    )


def test_damped_lsmr_is_the_damped_least_squares_solution():
    A = _spd(10, 100)
    b = torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    found = lsmr(A, b, torch.zeros_like(b), damp=1.0, tolerance=1e-13, max_iterations=5000).value
    expected = torch.linalg.solve(A.T @ A + torch.eye(10, dtype=torch.float64), A.T @ b)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_double_solvers_on_float32_inputs_stay_float32():
    A, b = _spd(8, 10).float(), torch.randn(8, 2, generator=torch.Generator().manual_seed(10))
    assert cholesky_solve(A, b, torch.zeros_like(b)).value.dtype == torch.float32
