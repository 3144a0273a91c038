"""Capabilities of this version: its methods, tasks and architectures, as values with JSON schemas. Torch-free."""

from __future__ import annotations

import inspect
from typing import Any, cast, get_args

from pydantic import BaseModel, Field

from pruning_core.arch.families import SIGNATURES
from pruning_core.spec.glue import GLUE_TASKS
from pruning_core.spec.metrics import Metric
from pruning_core.spec.prune import Frozen, Method, TaskSpec
from pruning_core.spec.tasks import KINDS, TaskType
from pruning_core.support.matrix import TriedArchitecture, read_matrix


class MethodInfo(Frozen):
    """One method and its options."""

    name: str
    description: str
    options: dict[str, Any] = Field(description="JSON schema of the spec's `method`.")


class TaskInfo(Frozen):
    """One task: either a name that stands for a whole `task`, or a type of task for your own data."""

    name: str = Field(description="A name to give as `task`, or the type of an explicit `task`.")
    type: TaskType
    loads_as: str = Field(description="The transformers class of its models.")
    reads: tuple[str, ...] = Field(description="What its input columns hold, one entry a column.")
    label: str | None = Field(description="What its column of labels holds; null where it has none.")
    metrics: tuple[Metric, ...] = Field(description="Metrics that it may be measured by.")
    task: dict[str, Any] | None = Field(description="The `task` that the name stands for; null for a type.")
    options: dict[str, Any] = Field(description="JSON schema of the spec's `task`.")


class ArchitectureInfo(TriedArchitecture):
    """A kind of model: its block layout, and what was found to work. Models are recognised by layout, not by name."""

    modules: dict[str, str] = Field(description="Module paths of the parts of a block.")


def methods() -> list[MethodInfo]:
    """List the methods with their options."""
    return [
        MethodInfo(name=str(kind.model_fields["name"].default), description=_first_line(kind), options=kind.model_json_schema())
        for kind in _models_in(Method)
    ]


def tasks() -> list[TaskInfo]:
    """List the named tasks, then the types of tasks."""
    schema = TaskSpec.model_json_schema()
    named = {name: TaskSpec.model_validate(task.as_task()) for name, task in sorted(GLUE_TASKS.items())}
    infos = [_task_info(name, task.type, schema, task.model_dump(mode="json")) for name, task in named.items()]
    return infos + [_task_info(name, name, schema, None) for name in KINDS]


def _task_info(name: str, task_type: TaskType, schema: dict[str, Any], task: dict[str, Any] | None) -> TaskInfo:
    kind = KINDS[task_type]
    return TaskInfo(
        name=name,
        type=task_type,
        loads_as=kind.loads_as,
        reads=kind.inputs,
        label=None if kind.labels is None else kind.labels.words,
        metrics=kind.metrics,
        task=task,
        options=schema,
    )


def architectures() -> list[ArchitectureInfo]:
    """List the architectures with the results of the contract tests."""
    layouts = {
        signature.family: {
            f"{sublayer.kind} {part}": path for sublayer in signature.sublayers for part, path in sublayer.paths()
        }
        for signature in SIGNATURES
    }
    return [ArchitectureInfo(**dict(tried), modules=layouts.get(tried.family or "", {})) for tried in read_matrix()]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    """Find the model classes of a discriminated union, inside any annotation that wraps it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in cast("tuple[object, ...]", get_args(annotation)) for model in _models_in(part)]


def _first_line(kind: type[BaseModel]) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")
