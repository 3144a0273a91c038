from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.masks import Mask
from pruning_core.evidence.cache import ActivationCache
from pruning_core.evidence.calibration import Batch, TokenSet
from pruning_core.evidence.context import Evidence
from pruning_core.evidence.states import DenseStates, plan_states
from pruning_core.recovery import solve
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.spec.prune import RecoverySpec
from pruning_core.stats.gram import Gram, GramSums
from tests import tiny
from tests.oracles import gram_of
from tests.repairs import batches


def _batches():
    return batches(count=6, n=8)


def half_mask(adapter, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kept = []
    for group in adapter.groups:
        flags = torch.zeros(group.size, dtype=torch.bool)
        flags[torch.randperm(group.size, generator=generator)[: group.size // 2]] = True
        kept.append(flags)
    return Mask(tuple(kept))


def _evidence(model, batches, *, recorded=False, memory=2**30, dtype=torch.float32):
    adapter = adapt(model)
    states = DenseStates(adapter, batches, memory)
    if recorded:
        for index, batch in enumerate(batches):
            with torch.no_grad(), states.recording(index):
                model(**batch.inputs)
    return Evidence(adapter, TokenSet(tuple(batches), 48, 0, 0.0, ""), states, dtype)


def _recover(model, mask, evidence=None, **spec):
    student = clone(model)
    evidence = evidence or _evidence(model, _batches())
    reports = prune_and_recover_(adapt(student), mask, evidence, RecoverySpec(**spec), on_sublayer=lambda _i: None)
    return student, reports


def _gram(X, B):
    """Statistics with the column of ones, in float64 throughout: oracles are compared beyond float32."""
    return gram_of(torch.cat([X, torch.ones(len(X), 1, dtype=X.dtype)], 1), B)


def test_sums_over_batches_are_the_statistics_with_a_column_of_ones():
    generator = torch.Generator().manual_seed(0)
    X, B = torch.randn(40, 6, generator=generator), torch.randn(40, 3, generator=generator)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        sums = GramSums(6, 3, dtype, X.device)
        for rows in (torch.arange(15), torch.arange(0), torch.arange(15, 40)):
            sums.add_(X, B, rows)
        found, expected = sums.result(), _gram(X.double(), B.double())
        torch.testing.assert_close(found.G, expected.G, rtol=tolerance, atol=10 * tolerance)
        torch.testing.assert_close(found.C, expected.C, rtol=tolerance, atol=10 * tolerance)
        assert (found.tokens, found.energy) == (40, pytest.approx(expected.energy, rel=tolerance))


def test_rows_collected_over_many_batches_are_all_counted():
    generator = torch.Generator().manual_seed(0)
    X, B = torch.randn(3000, 6, generator=generator), torch.randn(3000, 3, generator=generator)
    sums = GramSums(6, 3, torch.bfloat16, X.device)
    for rows in torch.arange(3000).split([5, 1019, 1500, 476]):  # a full buffer, more than one, and a rest
        sums.add_(X, B, rows)
    found, expected = sums.result(), _gram(X.double(), B.double())
    assert found.tokens == 3000
    torch.testing.assert_close(found.G, expected.G, rtol=1e-2, atol=10)
    torch.testing.assert_close(found.C, expected.C, rtol=1e-2, atol=10)


def _last_weights(student):
    return adapt(student).sublayers[-1].output.weight


def _hidden_error(model, student):
    inputs = _batches()[0].inputs
    with torch.no_grad():
        difference = model.bert(**inputs).last_hidden_state - student.bert(**inputs).last_hidden_state
    return float(difference[inputs["attention_mask"].bool()].square().mean())


def test_grams_add_up_and_give_the_residual():
    generator = torch.Generator().manual_seed(0)
    X, B = torch.randn(40, 6, generator=generator), torch.randn(40, 3, generator=generator)
    W = torch.randn(6, 3, generator=generator)
    merged = gram_of(X[:15], B[:15]) + gram_of(X[15:], B[15:])
    torch.testing.assert_close(merged.G, (X.T @ X).double(), rtol=1e-5, atol=1e-5)
    assert merged.tokens == 40
    expected = float((B - X @ W).square().sum() / B.square().sum())
    assert merged.relative_residual(W) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unit_width", [1, 3])
def test_scalar_masks_solve_the_explicit_design(unit_width):
    """The (N d) x units design matrix is built here, and only here."""
    generator = torch.Generator().manual_seed(0)
    k, d, n = 6, 4, 50
    X, B = torch.randn(n, k, generator=generator).double(), torch.randn(n, d, generator=generator).double()
    W, bias = torch.randn(k, d, generator=generator).double(), torch.randn(1, d, generator=generator).double()
    gram = _gram(X, B)
    spec = RecoverySpec(kind="masks", solver="cg", tolerance=1e-12)
    solution, after = solve.solve_problem(solve.RepairProblem("cg", torch.cat([W, bias]), unit_width, biased=True), gram, spec)
    blocks = [(X[:, i : i + unit_width] @ W[i : i + unit_width]).flatten() for i in range(0, k, unit_width)]
    expected = torch.linalg.lstsq(torch.stack(blocks, 1), (B - bias).flatten()[:, None]).solution
    torch.testing.assert_close(solution.value, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after[:-1], W * expected.repeat_interleave(unit_width, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", ["cg", "pcg", "cholesky", "lsmr"])
def test_weights_without_ridge_are_the_least_squares_solution(solver):
    generator = torch.Generator().manual_seed(0)
    X, B = torch.randn(60, 5, generator=generator).double(), torch.randn(60, 3, generator=generator).double()
    spec = RecoverySpec(damping=0, tolerance=1e-12, max_iterations=5000)
    found = solve.solve_system(solver, solve.weights_system(_gram(X, B), torch.zeros(6, 3).double(), 0), spec).value
    expected = torch.linalg.lstsq(torch.cat([X, torch.ones(60, 1).double()], 1), B).solution
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_huge_ridge_keeps_the_weights_but_still_moves_the_bias():
    generator = torch.Generator().manual_seed(0)
    X, W = torch.randn(60, 5, generator=generator).double(), torch.randn(5, 3, generator=generator).double()
    gram = _gram(X, X @ W + 7)
    system = solve.weights_system(gram, torch.cat([W, torch.zeros(1, 3).double()]), 10)
    found = solve.solve_system("cholesky", system, RecoverySpec())
    torch.testing.assert_close(found.value[:-1], W, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.value[-1], torch.full((3,), 7.0).double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["weights", "masks"])
def test_recovery_brings_the_student_back_towards_the_teacher(kind):
    model = tiny.build_model("bert")
    mask = half_mask(adapt(model))
    unrepaired, _ = _recover(model, mask, kind="none")
    repaired, reports = _recover(model, mask, kind=kind)
    assert _hidden_error(model, repaired) < 0.8 * _hidden_error(model, unrepaired)
    kept = [report for report in reports if report.status != "rejected"]
    assert len(kept) >= len(reports) - 1
    for report in kept:
        assert report.status in ("converged", "max_iterations")
        assert report.residual_after < report.residual_before


@pytest.mark.parametrize("kind", ["weights", "masks"])
def test_the_residual_after_is_that_of_the_weights_that_are_delivered(kind, monkeypatch):
    model = tiny.build_model("bert")
    adapter = adapt(model)
    honest, seen = solve.repair_, []

    def watch(pruned, fit, judge, spec):
        report = honest(pruned, fit, judge, spec)
        output = pruned.output
        last = torch.zeros(pruned.hidden) if output.bias is None else output.bias
        W = torch.cat([output.weight.T, last[None, :]]).double()
        residual = judge.energy + float((W * (judge.G @ W - 2 * judge.C)).sum())
        seen.append((report, residual / judge.energy))
        return report

    monkeypatch.setattr("pruning_core.recovery.sequential.repair_", watch)
    _recover(model, half_mask(adapter), kind=kind)
    assert len(seen) == len(adapter.sublayers)
    for report, residual in seen:
        assert report.residual_after == pytest.approx(residual, rel=1e-3)


def _sublayer(width=12, hidden=5):
    """An output projection that reads ``width`` neurons, as repairs see it."""
    output = torch.nn.Linear(width, hidden)
    with torch.no_grad():
        output.weight.normal_(generator=torch.Generator().manual_seed(1))
    return SimpleNamespace(output=output.requires_grad_(False), units=width, unit_width=1, hidden=hidden)


def _problem(rows=80, width=12, hidden=5, *, duplicate=False, scale=1.0):
    generator = torch.Generator().manual_seed(2)
    X, B = (torch.randn(rows, count, generator=generator, dtype=torch.float64) for count in (width, hidden))
    B += X[:, :hidden]
    if duplicate:
        X[:, -1] = X[:, 0]
    return _gram(X[:60], scale * B[:60]), _gram(X[60:], scale * B[60:])


@pytest.mark.parametrize(
    ("duplicate", "damping", "status"), [(False, 1e-2, "converged"), (True, 1e-2, "converged"), (True, 0.0, "jittered")]
)
def test_a_singular_system_is_said_of_the_weights_that_are_delivered(duplicate, damping, status):
    pruned = _sublayer()
    report = solve.repair_(pruned, *_problem(duplicate=duplicate), RecoverySpec(damping=damping))
    assert (report.status, report.iterations) == (status, 0)
    assert report.residual_after < report.residual_before


def test_a_repair_that_leaves_the_stored_range_is_a_breakdown_and_changes_nothing():
    pruned = _sublayer()
    before = pruned.output.weight.clone()
    spec = RecoverySpec(solver="pcg")  # in float64, where it has room
    report = solve.repair_(pruned, *_problem(scale=1e42), spec)
    assert report.status == "breakdown"
    assert report.residual_after == report.residual_before
    assert torch.equal(pruned.output.weight, before)


def test_weights_repair_better_than_masks():
    model = tiny.build_model("bert")
    mask = half_mask(adapt(model))
    errors = {kind: _hidden_error(model, _recover(model, mask, kind=kind)[0]) for kind in ("weights", "masks")}
    assert errors["weights"] < errors["masks"]


def test_nothing_pruned_changes_nothing_much():
    model = tiny.build_model("bert")
    student, _ = _recover(model, Mask.full([group.size for group in adapt(model).groups]))
    assert _hidden_error(model, student) < 1e-8


def test_a_breakdown_leaves_its_sublayer_and_goes_on(monkeypatch):
    model = tiny.build_model("bert")
    mask = half_mask(adapt(model))
    honest = solve.repair_
    calls = []

    def poison_the_first(pruned, fit, judge, spec):
        calls.append(pruned)
        if len(calls) == 1:
            fit = Gram(-fit.G, fit.C, fit.energy, fit.tokens)
        return honest(pruned, fit, judge, spec)

    monkeypatch.setattr("pruning_core.recovery.sequential.repair_", poison_the_first)
    student, reports = _recover(model, mask)
    assert reports[0].status == "breakdown"
    kept = mask.indices(0)
    columns = (kept[:, None] * 8 + torch.arange(8)).flatten()
    torch.testing.assert_close(adapt(student).sublayers[0].output.weight, adapt(model).sublayers[0].output.weight[:, columns])
    assert all(report.status == "converged" for report in reports[1:])


def test_batches_do_not_change_the_result_beyond_rounding():
    model = tiny.build_model("bert")
    mask = half_mask(adapt(model))
    singles = [
        Batch({k: v[i : i + 1] for k, v in b.inputs.items()}, b.rows[i : i + 1], None) for b in _batches() for i in range(8)
    ]
    whole, single = (_recover(model, mask, _evidence(model, batches))[0] for batches in (_batches(), singles))
    torch.testing.assert_close(_last_weights(whole), _last_weights(single), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("budget", [0, 30_000, 60_000, 2**30])
def test_kept_states_change_nothing_beyond_their_rounding(budget):
    model = tiny.build_model("bert")
    mask = half_mask(adapt(model))
    alone, _ = _recover(model, mask)
    evidence = _evidence(model, _batches(), recorded=True, memory=budget)
    kept = sum(evidence.states.sums(index) is not None for index in range(6))
    assert kept == evidence.states.plan.batches
    recorded, _ = _recover(model, mask, evidence)
    tolerance = 1e-5 if evidence.states.plan.dtype == torch.float32 else 5e-3
    torch.testing.assert_close(_last_weights(alone), _last_weights(recorded), rtol=tolerance, atol=tolerance)


def test_the_plan_of_states_spends_what_it_is_given():
    plans = [
        plan_states([100, 100, 200], hidden=16, sublayers=4, budget=budget) for budget in (0, 40_000, 60_000, 80_000, 200_000)
    ]
    assert [plan.batches for plan in plans] == [0, 1, 2, 3, 3]
    assert [plan.dtype for plan in plans] == [torch.float16] * 4 + [torch.float32]
    assert [plan.streams for plan in plans] == [0, 25_600, 25_600, 12_800, 25_600]  # two in float16, one, one in float32
    assert all(
        plan.bytes + plan.spare == budget for plan, budget in zip(plans, (0, 40_000, 60_000, 80_000, 200_000), strict=True)
    )


def test_what_does_not_fit_lies_in_a_file_and_comes_back_as_it_was(tmp_path):
    with ActivationCache(30, room=12, dtype=torch.float16, device=torch.device("cpu"), scratch=tmp_path) as cache:
        generator = torch.Generator().manual_seed(0)
        values = [torch.randn(shape, generator=generator) for shape in ((2, 5), (1, 3), (3, 4), (5,))]
        entries = [cache.keep(value) for value in values]
        for entry, value in zip(entries, values, strict=True):
            torch.testing.assert_close(entry.read(), value.half(), rtol=0, atol=0)
        entries[2].write(values[2] + 1)
        torch.testing.assert_close(entries[2].read(), (values[2] + 1).half(), rtol=0, atol=0)
        torch.testing.assert_close(entries[3].read(), values[3].half(), rtol=0, atol=0)
        assert list(tmp_path.iterdir()) == []  # nothing to sweep up after a crash


def test_bfloat16_products_give_nearly_the_same_repair():
    model = tiny.build_model("bert")
    mask = half_mask(adapt(model))
    exact, _ = _recover(model, mask)
    rounded, _ = _recover(model, mask, _evidence(model, _batches(), dtype=torch.bfloat16))
    assert _hidden_error(model, rounded) < 1.05 * _hidden_error(model, exact)


def test_a_subset_of_the_samples_is_what_it_says():
    model = tiny.build_model("bert")
    mask = half_mask(adapt(model))
    student = clone(model)
    prune_and_recover_(
        adapt(student),
        mask,
        _evidence(model, _batches(), recorded=True),
        RecoverySpec(),
        on_sublayer=lambda _i: None,
        samples=20,
    )
    fewer = [Batch({k: v[b.rows < 20] for k, v in b.inputs.items()}, b.rows[b.rows < 20], None) for b in _batches()[:3]]
    evidence = _evidence(model, fewer)
    evidence = replace(evidence, calibration=replace(evidence.calibration, samples=20))
    alone, _ = _recover(model, mask, evidence)
    torch.testing.assert_close(_last_weights(student), _last_weights(alone), rtol=1e-4, atol=1e-5)


def test_without_a_bias_the_weights_alone_solve_the_least_squares():
    generator = torch.Generator().manual_seed(0)
    X, B = torch.randn(50, 6, generator=generator).double() + 1, torch.randn(50, 4, generator=generator).double()
    before = torch.cat([torch.randn(6, 4, generator=generator).double(), torch.zeros(1, 4).double()])
    spec = RecoverySpec(damping=0.0)
    solution, after = solve.solve_problem(solve.RepairProblem("cholesky", before, 1, biased=False), _gram(X, B), spec)
    assert solution.status == "converged"
    torch.testing.assert_close(after[:-1], torch.linalg.lstsq(X, B).solution, rtol=1e-8, atol=1e-8)
    assert not after[-1].any()
