"""What is known to work: methods by architectures, as the contract tests found it. Torch-free.

``architectures.json`` is written by ``make architectures`` from the tests' own cells, and never by hand; a test of every cell
compares what it finds with what stands there.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from pydantic import Field, TypeAdapter

from pruning_core.delivery import Layout
from pruning_core.frozen import Frozen

MATRIX_NAME = "architectures.json"


class MatrixCell(Frozen):
    """One way to prune one kind of model, tried on a tiny random one from the request to the proof in a fresh process."""

    method: str
    layout: Layout
    task: str = Field(description="The type of task that it was tried with.")
    result: Literal["works", "refused"]
    reason: str | None = Field(default=None, description="Why it is refused, as a job would say it.")
    onnx: Literal["ok", "failed"] | None = Field(
        default=None, description="Whether an ONNX graph gives the same; null: not tried."
    )


class TriedArchitecture(Frozen):
    """A kind of model, and everything that was tried on it."""

    name: str
    family: str | None = Field(description="The layout of its blocks; null where none is known.")
    generates: bool = Field(description="A decoder whose pruned model was shown to generate with its cache of keys and values.")
    cells: tuple[MatrixCell, ...]


_MATRIX = TypeAdapter(tuple[TriedArchitecture, ...])


def read_matrix() -> tuple[TriedArchitecture, ...]:
    """Read what the contract tests found."""
    return _MATRIX.validate_json(files("pruning_core").joinpath(MATRIX_NAME).read_bytes())


def write_matrix(architectures: tuple[TriedArchitecture, ...]) -> str:
    """Give the text of the file."""
    return _MATRIX.dump_json(architectures, indent=1).decode() + "\n"
