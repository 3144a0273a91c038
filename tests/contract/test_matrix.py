"""What is told of architectures is what the tests find, cell by cell."""

from __future__ import annotations

import pytest

from pruning_core.matrix import read_matrix
from tests.families import ARCHITECTURES
from tests.matrix import PAGE_PATH, page, try_cell, ways_of

# One of each kind on every run; all of them by `make test-matrix`.
QUICK = {
    ("bert", "block-lasso, stock"),
    ("vit", "fisher-cg, stock"),
    ("llama", "fisher-cg, per_layer, writing"),
    ("gpt2", "admm-pattern, stock"),
    ("bart", "fisher-cg, per_layer, writing"),
}
CELLS = [
    pytest.param(name, way, id=f"{name}, {way.name}", marks=() if (name, way.name) in QUICK else pytest.mark.matrix)
    for name in ARCHITECTURES
    for way in ways_of(ARCHITECTURES[name])
]


@pytest.mark.parametrize(("name", "way"), CELLS)
def test_a_cell_is_as_the_matrix_says(name, way, tmp_path):
    told = next(own for own in read_matrix() if own.name == name)
    architecture = ARCHITECTURES[name]
    assert try_cell(architecture, way, tmp_path) == told.cells[ways_of(architecture).index(way)]


def test_the_matrix_tells_of_every_architecture_and_the_page_says_the_same():
    found = read_matrix()
    assert [own.name for own in found] == list(ARCHITECTURES)
    assert PAGE_PATH.read_text(encoding="utf-8") == page(found)
    for own in found:
        works = {cell.result for cell in own.cells}
        assert own.family is None or "works" in works
