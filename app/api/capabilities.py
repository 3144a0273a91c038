"""Capabilities of this server: methods, tasks, architectures."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.api.deps import Owner
from app.errors import ProblemDetails
from pruning_core.support.capabilities import ArchitectureInfo, MethodInfo, TaskInfo, architectures, methods, tasks

router = APIRouter(prefix="/v1", tags=["capabilities"], responses={"default": {"model": ProblemDetails}})


class MethodList(BaseModel):
    """The methods."""

    object: Literal["list"] = "list"
    data: list[MethodInfo]


class TaskList(BaseModel):
    """The tasks: names, then types."""

    object: Literal["list"] = "list"
    data: list[TaskInfo]


class ArchitectureList(BaseModel):
    """The architectures."""

    object: Literal["list"] = "list"
    data: list[ArchitectureInfo]


@router.get("/methods", operation_id="listMethods")
def list_methods(_owner: Owner) -> MethodList:
    """List the methods, with the JSON schema of what can be set."""
    return MethodList(data=methods())


@router.get("/tasks", operation_id="listTasks")
def list_tasks(_owner: Owner) -> TaskList:
    """List the tasks that have a name, and the types of tasks for data of your own."""
    return TaskList(data=tasks())


@router.get("/architectures", operation_id="listArchitectures")
def list_architectures(_owner: Owner) -> ArchitectureList:
    """List the block structures that can be pruned."""
    return ArchitectureList(data=architectures())
