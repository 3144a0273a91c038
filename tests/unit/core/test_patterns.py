from __future__ import annotations

import itertools
import math

import pytest
import torch

from pruning_core.errors import TargetUnreachable
from pruning_core.methods.admm_pattern.coverage import check_coverage
from pruning_core.patterns.pool import decode, encode, improve, mine_pool, most_frequent
from pruning_core.patterns.project import LargestFraction, LargestOfBlock, LargestOfPool, best_of_pool, from_blocks, to_blocks
from pruning_core.patterns.recount import count_matrix
from pruning_core.spec.grammar import BlockPattern, MatrixShape, parse_pattern

PATTERNS = ("2:4", "4:8", "1:3", "3:5", "2x2:1", "4x4:8", "2x3:4")


def random_energy(k: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(k, d, generator=torch.Generator().manual_seed(seed))


def arrangements_of(pattern: BlockPattern) -> torch.Tensor:
    """Every way to keep ``keep`` weights of a block."""
    rows = []
    for kept in itertools.combinations(range(pattern.size), pattern.keep):
        row = torch.zeros(pattern.size, dtype=torch.bool)
        row[list(kept)] = True
        rows.append(row)
    return torch.stack(rows)


def read(text: str) -> BlockPattern:
    pattern = parse_pattern(text)
    assert pattern is not None
    return pattern


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "outputs", "inputs", "keep"),
        [("2:4", 1, 4, 2), ("4:8", 1, 8, 4), ("1x4:2", 1, 4, 2), ("4x4", 4, 4, 8), ("8x2:3", 8, 2, 3)],
    )
    def test_reads_what_people_write(self, text, outputs, inputs, keep):
        assert parse_pattern(text) == BlockPattern(outputs, inputs, keep)

    def test_unstructured_has_no_blocks(self):
        assert parse_pattern("unstructured") is None

    @pytest.mark.parametrize("text", ["4:4", "5:4", "0:4", "4x4:16", "4x4:0", "1x1", "2:", "2-4", "", "9x9", "2:128", "-1:4"])
    def test_refuses_what_prunes_nothing_or_everything_or_is_none(self, text):
        with pytest.raises(ValueError, match=r"must|at most 64"):
            parse_pattern(text)


class TestProjections:
    @pytest.mark.parametrize("text", PATTERNS)
    def test_no_arrangement_of_any_block_keeps_more(self, text):
        pattern = read(text)
        energy = random_energy(pattern.inputs * 3 + 1, pattern.outputs * 4 + 1)
        support = LargestOfBlock(pattern).support(energy)
        kept = to_blocks(energy * support, pattern).sum(0)
        every = arrangements_of(pattern).float() @ to_blocks(energy, pattern)
        torch.testing.assert_close(kept, every.max(0).values)
        assert (to_blocks(support, pattern).sum(0) == pattern.keep).all()

    @pytest.mark.parametrize("text", ["4:16", "4:17", "4x8:16"])
    def test_many_weights_a_block_are_ranked_like_few(self, text):
        pattern = read(text)
        energy = random_energy(pattern.inputs * 2, pattern.outputs * 3)
        support = to_blocks(LargestOfBlock(pattern).support(energy), pattern)
        blocks = to_blocks(energy, pattern)
        expected = blocks >= blocks.topk(pattern.keep, dim=0).values[-1]
        assert torch.equal(support, expected)

    @pytest.mark.parametrize("text", ["2:4", "20:40"])
    def test_of_equal_energies_the_first_stay(self, text):
        pattern = read(text)
        support = LargestOfBlock(pattern).support(torch.zeros(pattern.inputs, 3))
        assert support[: pattern.keep].all()
        assert not support[pattern.keep :].any()

    @pytest.mark.parametrize("text", PATTERNS)
    def test_what_no_whole_block_covers_stays_dense(self, text):
        pattern = read(text)
        k, d = pattern.inputs * 2 + 1, pattern.outputs * 2 + pattern.outputs - 1
        support = LargestOfBlock(pattern).support(random_energy(k, d))
        assert support[pattern.inputs * 2 :].all()
        assert support[:, pattern.outputs * 2 :].all()

    @pytest.mark.parametrize("text", PATTERNS)
    def test_blocks_can_be_undone(self, text):
        pattern = read(text)
        support = random_energy(pattern.inputs * 3, pattern.outputs * 2) > 0.5
        assert torch.equal(from_blocks(to_blocks(support, pattern), pattern, support.shape), support)

    def test_blocks_list_weights_by_output_then_input(self):
        values = torch.arange(6.0).view(3, 2)  # three inputs, two outputs
        assert to_blocks(values, BlockPattern(2, 3, 3))[:, 0].tolist() == [0, 2, 4, 1, 3, 5]

    def test_the_pool_s_best_arrangement_is_taken_in_every_block(self):
        pattern = read("2x4:3")
        pool = arrangements_of(pattern)[::5]
        energy = random_energy(16, 8)
        support = LargestOfPool(pattern, pool).support(energy)
        blocks, held = to_blocks(energy, pattern), to_blocks(support, pattern)
        for block in range(blocks.shape[1]):
            kept = [float(blocks[:, block][row].sum()) for row in pool]
            assert float(blocks[:, block][held[:, block]].sum()) == pytest.approx(max(kept))
            assert any(torch.equal(held[:, block], row) for row in pool)

    @pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77])
    def test_unstructured_keeps_the_largest(self, sparsity):
        energy = random_energy(13, 7)
        support = LargestFraction(sparsity).support(energy)
        assert int((~support).sum()) == math.ceil(sparsity * 91)
        assert energy[support].min() > energy[~support].max()


class TestPool:
    @pytest.mark.parametrize("size", [4, 16, 64])
    def test_codes_can_be_undone(self, size):
        rows = torch.rand(50, size, generator=torch.Generator().manual_seed(1)) > 0.5
        rows[0], rows[1] = True, False
        assert torch.equal(decode(encode(rows), size), rows)

    def test_the_most_frequent_arrangements_are_counted(self):
        pattern = read("1x4:2")
        pairs = torch.tensor([[1.0, 1, 0, 0]] * 5 + [[0, 0, 1, 1.0]] * 3 + [[1, 0, 0, 1.0]])
        pool = most_frequent([from_rows(pairs)], pattern, 2)
        assert pool.int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]

    def test_improving_never_loses_energy_and_wins_some(self):
        pattern = read("4x4:8")
        energies = [random_energy(64, 64, seed) for seed in range(3)]
        blocks = torch.cat([to_blocks(energy, pattern) for energy in energies], dim=1)
        first = most_frequent(energies, pattern, 8)
        better = improve(first, blocks, pattern.keep)
        assert kept_energy(better, blocks) > 1.005 * kept_energy(first, blocks)
        assert (better.sum(1) == pattern.keep).all()

    def test_a_mined_pool_is_small_and_the_same_for_the_same_seed(self):
        pattern = read("4x4:8")
        energies = [random_energy(64, 64, seed) for seed in range(3)]
        pools = [mine_pool(energies, pattern, 16, torch.Generator().manual_seed(3)) for _ in range(2)]
        assert torch.equal(*pools)
        assert 2 <= len(pools[0]) <= 16


def from_rows(blocks: torch.Tensor) -> torch.Tensor:
    """Put blocks of one output each below each other, input-major."""
    return blocks.flatten()[:, None]


def kept_energy(pool: torch.Tensor, blocks: torch.Tensor) -> float:
    return float((blocks * pool[best_of_pool(blocks, pool)].T).sum())


class TestRecount:
    def test_every_block_that_breaks_the_pattern_is_found(self):
        weight = torch.ones(3, 8)
        weight[:, [0, 1, 4, 5]] = 0
        weight[1, 0] = 1
        weight[2, :4] = 1
        count = count_matrix("m", weight, read("2:4"), None)
        assert (count.blocks, count.violations, count.zeros) == (6, 2, 9)

    def test_fewer_weights_than_the_pattern_keeps_satisfy_it(self):
        assert count_matrix("m", torch.zeros(2, 8), read("2:4"), None).violations == 0

    def test_arrangements_outside_the_pool_break_it(self):
        pool = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()
        weight = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]])
        assert count_matrix("m", weight, read("1x4:2"), pool).violations == 1

    def test_remainders_are_counted_apart(self):
        count = count_matrix("m", torch.ones(5, 10), read("2x4:4"), None)
        assert count.covered == 4 * 8
        assert count.remainder is not None
        assert (count.remainder.outputs, count.remainder.inputs, count.remainder.weights) == (1, 2, 18)


class TestCoverage:
    def test_a_pattern_larger_than_a_matrix_is_refused_and_the_matrix_is_named(self):
        with pytest.raises(TargetUnreachable, match="4:8 is larger than key of layer 3") as caught:
            check_coverage("4:8", [MatrixShape("query", 8, 8), MatrixShape("key of layer 3", 8, 6)], [])
        assert caught.value.param == "method.pattern"

    def test_a_sparsity_that_remainders_put_out_of_reach_is_refused(self):
        with pytest.raises(TargetUnreachable, match=r"make 0\.4000 of the weights zero"):
            check_coverage("2:4", [MatrixShape("m", 1, 5)], [0.5])

    def test_what_fits_passes_and_so_do_matrices_without_weights(self):
        check_coverage("2:4", [MatrixShape("m", 1, 8), MatrixShape("gone", 4, 0)], [0.5])
