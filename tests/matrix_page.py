"""The contract matrix as a page for people."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pruning_core.spec.tasks import KINDS
from pruning_core.support.matrix import Asked, MatrixCell, TriedArchitecture

_HEAD = """# Architectures, methods, tasks and outputs

Written by `make architectures` from the contract tests (`tests/contract/test_matrix.py`); nothing here is kept by hand. Each
cell is a tiny random model of the architecture, pruned from the request to the proof in a fresh process that has stock
`transformers` alone. What is refused is refused by the submit, before any work, with the reason below; the job of what is let
in works. The same is served at `GET /v1/architectures`.
"""
_METHODS = """
## Architectures by methods

On the usual task of each: classification of texts or of images, and where transformers has no class for that, writing.
"trained" is the tier that goes on from one shot with the task's loss. The column serve is the one that is not tried: it names
the engines whose limits take layers of the architecture that differ, by its configuration (`pruning_core/engines/limits.py`);
layout serve asks for some of them by name. Mistral attends to a window of tokens here, which fewer of them take than Llama.
"""
_TASKS = """
## Architectures by tasks

By fisher-cg, per_layer. A model of a task is one with its head.
"""
_OUTPUTS = """
## Tasks by methods and outputs

On one architecture each. "sharded": the model is given, and the checkpoint is written, in several files. Graphs are run by
`onnxruntime`, compressed forms are compared bit by bit.
"""


def page(found: Sequence[TriedArchitecture], shown_on: dict[str, str], methods, outputs, serves) -> str:
    """Write the page.

    Args:
        found: What came of everything that was asked.
        shown_on: Of each task the architecture on which it met everything.
        methods: Gives what was asked of a task by each method.
        outputs: Gives what was asked of a task with each output.
        serves: Gives the engines that take an architecture, by its name, in the layout serve.
    """
    notes = _Notes()
    usual = {own.name: next(cell.task for cell in own.cells if cell.tier == "trained") for own in found}
    first = [
        [
            own.name,
            own.family or "",
            *(notes.shown(own.cell(asked)) for asked in methods(usual[own.name])),
            ", ".join(serves(own.name)),
            notes.shown(own.cell(Asked(task=usual[own.name], formats=("safetensors", "onnx")))),
            "with its cache" if own.generates else "",
        ]
        for own in found
    ]
    second = [[own.name, *(notes.shown(own.cell(Asked(task=task))) for task in KINDS)] for own in found]
    by_name = {own.name: own for own in found}
    third = [
        [task, name, *(notes.shown(by_name[name].cell(asked)) for asked in (*methods(task), *outputs(task)))]
        for task, name in shown_on.items()
        if name in by_name
    ]
    some = next(iter(KINDS))
    names = [_name(asked) for asked in methods(some)]
    parts = [
        _HEAD,
        _METHODS,
        *_table(["architecture", "blocks like", *names, "serve", "ONNX", "generates"], first),
        _TASKS,
        *_table(["architecture", *KINDS], second),
        _OUTPUTS,
        *_table(["task", "on", *names, *(_name(asked) for asked in outputs(some))], third),
        "\n## Refused\n",
        *notes.lines(),
    ]
    return "\n".join(parts) + "\n"


class _Notes:
    """Reasons, each once, numbered as they come."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def shown(self, cell: MatrixCell | None) -> str:
        if cell is None:
            return ""
        if cell.reason is not None:
            return f"refused ({self._number(cell.reason)})"
        if cell.failure is not None:
            return f"works, without the format ({self._number(cell.failure)})"
        return "works"

    def _number(self, reason: str) -> int:
        # Which model it is, and what else it can do, is seen in the table.
        general = re.sub(r"^model type \S+ cannot do \S+: (.*); it can do .*$", r"\1", reason)
        if general not in self._found:
            self._found.append(general)
        return 1 + self._found.index(general)

    def lines(self) -> list[str]:
        return [f"{number}. {reason}" for number, reason in enumerate(self._found, 1)]


def _name(asked: Asked) -> str:
    said = [asked.method] if asked.method != "fisher-cg" or asked == Asked(task=asked.task, layout=asked.layout) else []
    said += [asked.tier] if asked.tier == "trained" else []
    # Zeros are asked for in the stock layout, but where dead units go.
    is_told = asked.method == "fisher-cg" or (asked.method == "block-lasso" and asked.layout != "stock")
    said += [asked.layout] if is_told and said else []
    said += [{"onnx": "ONNX"}.get(own, own) for own in asked.formats if own != "safetensors"]
    said += [asked.dtype] if asked.dtype != "auto" else []
    return ", ".join([*said, *(["sharded"] if asked.sharded else [])])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
