"""Capabilities of this version: its methods, tasks and architectures, as values with JSON schemas. Torch-free."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel, Field

from pruning_core.arch.families import SIGNATURES
from pruning_core.spec.glue import GLUE_TASKS
from pruning_core.spec.method import METHODS
from pruning_core.spec.metrics import Metric
from pruning_core.spec.prune import Frozen, TaskSpec
from pruning_core.spec.tasks import KINDS, TaskType
from pruning_core.support.matrix import TriedArchitecture, read_matrix


class PresetInfo(Frozen):
    """Settings of a method that go together, under one name."""

    name: str
    description: str
    settings: dict[str, Any] = Field(description="What it sets, by the dotted path of each field of the spec.")


class MethodInfo(Frozen):
    """One method and its options."""

    name: str
    description: str
    by_default: str = Field(default="", description="The technique that runs where no option is set.")
    presets: tuple[PresetInfo, ...] = Field(default=(), description="Settings under one name, given as `preset` of `method`.")
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
        MethodInfo(
            name=name,
            description=_first_line(kind),
            by_default=kind.by_default,
            presets=tuple(
                PresetInfo(name=preset, description=own.about, settings=dict(own.settings))
                for preset, own in kind.presets.items()
            ),
            options=kind.model_json_schema(),
        )
        for name, kind in METHODS.items()
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


def _first_line(kind: type[BaseModel]) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")
