"""The support matrix: methods by architectures, tasks and outputs, with the results of the contract tests. Torch-free.

``make architectures`` writes ``architectures.json`` from the cells of the tests; it is not edited by hand. For every cell, a
test compares its own result with the recorded one.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from pydantic import Field, TypeAdapter

from pruning_core.spec.artifacts import Format, Layout
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.method import MethodName
from pruning_core.spec.tasks import TaskType
from pruning_core.spec.training import Tier

MATRIX_NAME = "architectures.json"


class Asked(Frozen):
    """One way to prune a model, as a spec asks for it."""

    task: TaskType
    method: MethodName = "fisher-cg"
    tier: Tier | None = Field(default=None, description="Tier of the method; null where it has none.")
    layout: Layout = "per_layer"
    formats: tuple[Format, ...] = ("safetensors",)
    dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    sharded: bool = Field(default=False, description="Whether model and checkpoint are each split into several files.")


class MatrixCell(Asked):
    """One way to prune one kind of model, and its result on a tiny random model: from submit to loading in a fresh process."""

    result: Literal["works", "refused"]
    reason: str | None = Field(default=None, description="Why it is refused, in the words of submit.")
    onnx: Literal["ok", "failed"] | None = Field(
        default=None, description="Whether an ONNX graph gives the same outputs; null: not tried."
    )
    compressed: Literal["ok", "failed"] | None = Field(
        default=None, description="Whether the compressed form holds the same bits; null: not tried."
    )
    failure: str | None = Field(default=None, description="Why a format could not be written, in the words of the report.")

    @property
    def asked(self) -> Asked:
        """The request that the cell answers."""
        return Asked(**{name: getattr(self, name) for name in Asked.model_fields})


class TriedArchitecture(Frozen):
    """A kind of model, and the result of everything that was tried on it."""

    name: str
    family: str | None = Field(description="Name of its block layout; null where none is known.")
    generates: bool = Field(description="Whether its pruned model was shown to generate text with a key-value cache.")
    cells: tuple[MatrixCell, ...]

    def cell(self, asked: Asked) -> MatrixCell | None:
        """Return the cell of a request, or None where it was not tried."""
        return next((cell for cell in self.cells if cell.asked == asked), None)


_MATRIX = TypeAdapter(tuple[TriedArchitecture, ...])


def read_matrix() -> tuple[TriedArchitecture, ...]:
    """Read the recorded results of the contract tests."""
    return _MATRIX.validate_json(files("pruning_core.support").joinpath(MATRIX_NAME).read_bytes())


def write_matrix(architectures: tuple[TriedArchitecture, ...]) -> str:
    """Return the text of the file: one cell a line, without the fields that have their default."""
    lines: list[str] = []
    for own in architectures:
        head = own.model_dump_json(exclude={"cells"}).removesuffix("}")
        cells = ",\n  ".join(cell.model_dump_json(exclude_defaults=True) for cell in own.cells)
        lines.append(f'{head},"cells":[\n  {cells}\n ]}}')
    return "[\n " + ",\n ".join(lines) + "\n]\n"
