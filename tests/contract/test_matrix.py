"""What is told of architectures is what the tests find, cell by cell."""

from __future__ import annotations

import pytest

from pruning_core.support.matrix import Asked, read_matrix
from tests.families import ARCHITECTURES
from tests.matrix import PAGE_PATH, asked_of, shown, try_cell

# One of each kind on every run; all of them by `make test-matrix`.
QUICK = {
    ("bert", Asked(task="question-answering", formats=("safetensors", "onnx"), dtype="float16")),
    ("bert", Asked(task="text-generation")),
    ("albert-groups", Asked(task="text-classification", method="block-lasso", tier="trained", layout="stock")),
    ("gpt-neox", Asked(task="text-generation")),
    ("albert", Asked(task="text-classification", method="block-lasso", tier="one-shot")),
    ("llama", Asked(task="text-generation")),
    ("bart", Asked(task="summarization")),
    ("bart", Asked(task="text-classification", layout="stock")),
    ("vit", Asked(task="image-classification", layout="stock")),
    ("t5", Asked(task="translation", formats=("safetensors", "onnx"), dtype="float16")),
}
CELLS = [
    pytest.param(
        name,
        asked,
        id=f"{name}, {', '.join(map(str, asked.model_dump(exclude_defaults=True).values()))}",
        marks=() if (name, asked) in QUICK else pytest.mark.matrix,
    )
    for name in ARCHITECTURES
    for asked in asked_of(ARCHITECTURES[name])
]


@pytest.mark.parametrize(("name", "asked"), CELLS)
@pytest.mark.long
def test_a_cell_is_as_the_matrix_says(name, asked, tmp_path):
    told = next(own for own in read_matrix() if own.name == name)
    assert try_cell(ARCHITECTURES[name], asked, tmp_path) == told.cell(asked)


def test_the_matrix_tells_of_everything_that_is_asked_and_the_page_says_the_same():
    found = read_matrix()
    assert [own.name for own in found] == list(ARCHITECTURES)
    assert PAGE_PATH.read_text(encoding="utf-8") == shown(found)
    for own in found:
        assert tuple(cell.asked for cell in own.cells) == asked_of(ARCHITECTURES[own.name])
        works = {cell.result for cell in own.cells}
        assert own.family is None or "works" in works
