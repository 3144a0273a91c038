"""What is known to work: methods by architectures, tasks and outputs, as the contract tests found it. Torch-free.

``architectures.json`` is written by ``make architectures`` from the tests' own cells, and never by hand; a test of every cell
compares what it finds with what stands there.
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
    tier: Tier | None = Field(default=None, description="Of methods that have tiers.")
    layout: Layout = "per_layer"
    formats: tuple[Format, ...] = ("safetensors",)
    dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    sharded: bool = Field(default=False, description="The model is given, and the checkpoint is written, in several files.")


class MatrixCell(Asked):
    """One way to prune one kind of model, tried on a tiny random one from the request to the proof in a fresh process."""

    result: Literal["works", "refused"]
    reason: str | None = Field(default=None, description="Why it is refused, as a submit says it.")
    onnx: Literal["ok", "failed"] | None = Field(
        default=None, description="Whether an ONNX graph gives the same; null: not tried."
    )
    compressed: Literal["ok", "failed"] | None = Field(
        default=None, description="Whether the compressed form holds the same bits; null: not tried."
    )
    failure: str | None = Field(default=None, description="Why a format could not be made, as the report says it.")

    @property
    def asked(self) -> Asked:
        """What was asked for."""
        return Asked(**{name: getattr(self, name) for name in Asked.model_fields})


class TriedArchitecture(Frozen):
    """A kind of model, and everything that was tried on it."""

    name: str
    family: str | None = Field(description="The layout of its blocks; null where none is known.")
    generates: bool = Field(description="A decoder whose pruned model was shown to generate with its cache of keys and values.")
    cells: tuple[MatrixCell, ...]

    def cell(self, asked: Asked) -> MatrixCell | None:
        """Give what came of a way to ask; None where it was not tried."""
        return next((cell for cell in self.cells if cell.asked == asked), None)


_MATRIX = TypeAdapter(tuple[TriedArchitecture, ...])


def read_matrix() -> tuple[TriedArchitecture, ...]:
    """Read what the contract tests found."""
    return _MATRIX.validate_json(files("pruning_core.support").joinpath(MATRIX_NAME).read_bytes())


def write_matrix(architectures: tuple[TriedArchitecture, ...]) -> str:
    """Give the text of the file: a cell a line, without what it leaves at its default."""
    lines: list[str] = []
    for own in architectures:
        head = own.model_dump_json(exclude={"cells"}).removesuffix("}")
        cells = ",\n  ".join(cell.model_dump_json(exclude_defaults=True) for cell in own.cells)
        lines.append(f'{head},"cells":[\n  {cells}\n ]}}')
    return "[\n " + ",\n ".join(lines) + "\n]\n"
