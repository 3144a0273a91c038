"""The contract matrix: every method on every architecture, from the request to the proof in a fresh process.

``python -m tests.matrix`` (``make architectures``) tries every cell and writes what it found for ``GET /v1/architectures``
and the page of architectures; `tests/contract/test_matrix.py` tries the same cells and compares. ``python -m tests.matrix llama
gemma`` tries those alone.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pruning_core.matrix import MATRIX_NAME, MatrixCell, TriedArchitecture, read_matrix, write_matrix
from tests import tasks, tiny
from tests.families import ARCHITECTURES, Architecture

ROOT = Path(__file__).resolve().parents[1]
JSON_PATH = ROOT / "pruning_core" / MATRIX_NAME
PAGE_PATH = ROOT / "docs" / "architectures.md"


@dataclass(frozen=True)
class Way:
    """A column of the matrix: what a spec asks for; ``writes``: of a model that writes, by the task of such models."""

    method: str
    layout: str
    writes: bool = False

    @property
    def name(self):
        return f"{self.method}, {self.layout}{', writing' if self.writes else ''}"

    def task(self, architecture: Architecture):
        return architecture.writes if self.writes else architecture.task

    def spec(self, architecture: Architecture, model: Path, data: Path):
        """Ask for it; an ONNX graph is tried once for each architecture."""
        kind = self.task(architecture)
        formats = ["safetensors", *(["onnx"] if self == WAYS[0] else [])]
        fields = {
            "artifacts": {"layout": self.layout, "formats": formats},
            "method": self.method,
            "target": {"metric": "macs", "keep": 0.6, "tolerance": 0.1},
            "evaluation": {"max_samples": 32},
        }
        if self.method == "block-lasso":
            fields["artifacts"]["formats"].append("compressed")
            fields |= {"method": {"name": self.method, "block": "8x8"}, "target": {"metric": "sparsity", "sparsity": 0.5}}
        if self.method == "admm-pattern":
            fields |= {"method": {"name": self.method, "pattern": "2:4"}, "target": None}
        elif self.method == "block-lasso":
            fields |= {"method": {"name": self.method, "block": "8x8"}, "target": {"metric": "sparsity", "sparsity": 0.5}}
        if kind != "text-classification":
            fields["task"] = tasks.task_of(kind, data)
        return tiny.tiny_spec(model, data, **fields)


WAYS = (
    Way("fisher-cg", "per_layer"),
    Way("fisher-cg", "per_layer", writes=True),
    Way("fisher-cg", "stock"),
    Way("magnitude", "per_layer"),
    Way("admm-pattern", "stock"),
    Way("block-lasso", "stock"),
)


def ways_of(architecture: Architecture):
    """Give the columns that say something of an architecture."""
    return [way for way in WAYS if way.task(architecture) is not None]


def try_cell(architecture: Architecture, way: Way, folder: Path) -> MatrixCell:
    """Prune a tiny model; what is refused must say why, and anything else that goes wrong is an error of the tests."""
    from pruning_core.errors import UnsupportedArchitecture
    from pruning_core.pipeline import run

    kind = way.task(architecture)
    found = {"method": way.method, "layout": way.layout, "task": kind}
    model, data = folder / f"{architecture.name}-{kind}", folder / f"data-{kind}"
    if not model.exists():
        architecture.write(model, head="generation" if way.writes else "classification")
    if not data.exists():
        tiny.write_dataset(data) if kind == "text-classification" else tasks.write_task_data(data, kind)
    try:
        report = run(way.spec(architecture, model, data), folder / f"{architecture.name}-{way.name}", device="cpu")
    except UnsupportedArchitecture as error:
        return MatrixCell(result="refused", reason=str(error), **found)
    assert report.acceptance is not None
    assert report.compressed is None or report.compressed.status == "ok"
    onnx = None if report.onnx is None else report.onnx.status
    return MatrixCell(result="works", onnx=onnx, **found)


def try_architecture(architecture: Architecture, folder: Path) -> TriedArchitecture:
    """Try every way."""
    return tried(architecture, tuple(try_cell(architecture, way, folder) for way in ways_of(architecture)))


def tried(architecture: Architecture, cells: tuple[MatrixCell, ...]) -> TriedArchitecture:
    """Sum up."""
    from pruning_core.arch.encoder import adapt

    family = None if architecture.refused else adapt(architecture.build()).family.family
    return TriedArchitecture(name=architecture.name, family=family, generates=architecture.generates, cells=cells)


def page(found: tuple[TriedArchitecture, ...]) -> str:
    """Write the page for people."""
    reasons: list[str] = []
    rows = [
        "| architecture | blocks like | " + " | ".join(way.name for way in WAYS) + " | ONNX | generates |",
        "| --- | --- |" + " --- |" * (len(WAYS) + 2),
    ]
    for own in found:
        by_way = dict(zip((way.name for way in ways_of(ARCHITECTURES[own.name])), own.cells, strict=True))
        shown: list[str] = []
        for way in WAYS:
            cell = by_way.get(way.name)
            if cell is not None and cell.reason is not None and cell.reason not in reasons:
                reasons.append(cell.reason)
            shown.append(_shown(cell, reasons))
        onnx = next((cell.onnx for cell in own.cells if cell.onnx), None)
        generates = "with its cache" if own.generates else ""
        rows.append(f"| {own.name} | {own.family or ''} | {' | '.join(shown)} | {onnx or ''} | {generates} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([_HEAD, *rows, "", "Refused, as a job says it:" if notes else "", "", *notes, ""])


def _shown(cell: MatrixCell | None, reasons: list[str]):
    if cell is None:
        return ""
    return "works" if cell.reason is None else f"refused ({reasons.index(cell.reason) + 1})"


_HEAD = """# Architectures

Written by `make architectures` from the contract tests (`tests/contract/test_matrix.py`); nothing here is kept by hand. Each
cell is a tiny random model of the architecture, pruned from the request to the proof in a fresh process that has stock
`transformers` alone: classification of texts or images, and in the column "writing" text-generation or summarization. The
same is served at `GET /v1/architectures`.
"""


def main(names: list[str]) -> None:
    """Try what is named, or everything, and write it."""
    before = {own.name: own for own in read_matrix()} if names else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in names or ARCHITECTURES:
            before[name] = try_architecture(ARCHITECTURES[name], folder)
            print(name, *(cell.result for cell in before[name].cells), flush=True)
    found = tuple(before[name] for name in ARCHITECTURES if name in before)
    JSON_PATH.write_text(write_matrix(found), encoding="utf-8")
    PAGE_PATH.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
