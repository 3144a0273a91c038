"""Why an engine will not run the bundle of a request: told before any work, and by the row of the report. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pruning_core.engines import limits, llama_cpp
from pruning_core.engines.registry import ENGINES, EngineFacts, Loads
from pruning_core.spec.prune import PruneSpec

_FILES: Mapping[Loads, str] = {"gguf": "gguf file", "onnx": "ONNX graph", "openvino": "openvino file"}


def reason_by_task(engine: EngineFacts, spec: PruneSpec) -> str | None:
    """Return why an engine has no use for models of a request's task, as a sentence; None where it has one."""
    task = spec.task.type
    return None if engine.serves(task) else f"{engine.title} is not run here for models of {task}"


def reason_by_model(engine: EngineFacts, spec: PruneSpec, config: Mapping[str, Any]) -> str | None:
    """Return why an engine can't hold the bundle that a request makes of a model, as a sentence; None where it can."""
    layout = spec.artifacts.layout
    why = None
    if layout == "serve" and engine.name in limits.ENGINES:
        why = limits.reason_against(engine.name, config)
    elif layout == "per_layer" and engine.own_environment and engine.loads == "checkpoint":
        return f"{engine.title} takes layers that differ in the layout serve alone, and this bundle's layout is per_layer"
    elif engine.name == "llama.cpp":  # layers of a pattern stay alike, whatever the layout
        why = llama_cpp.reason_against(config, alike=layout == "stock" or not spec.method.removes_units)
    return None if why is None else f"{engine.title} cannot hold the model: {why}"


def reason_of(engine: EngineFacts, spec: PruneSpec, config: Mapping[str, Any]) -> str | None:
    """Return why an engine will not run the bundle of a request, as a sentence; None where it will.

    Args:
        engine: The engine.
        spec: The request.
        config: Configuration of the model.
    """
    why = reason_by_task(engine, spec) or reason_by_model(engine, spec, config)
    if why is None and engine.loads != "checkpoint" and engine.loads not in spec.artifacts.formats:
        why = f"{engine.title} does not run the bundle: {without_file(engine.loads)}"
    return why


def without_file(loads: Loads, why: str | None = None) -> str:
    """Return that there is no file of the form which an engine loads, as a sentence.

    Args:
        loads: The form.
        why: The reason, where the file was asked for.
    """
    return f"there is no {_FILES.get(loads, loads)}: {why or f'add {loads} to artifacts.formats'}"


def notes_on_engines(spec: PruneSpec, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence without its end for each engine of a request whose row will say that it does not work.

    Args:
        spec: The request.
        config: Configuration of the model.
    """
    for name in spec.artifacts.engines:
        why = reason_of(ENGINES[name], spec, config)
        if why is not None:
            yield why
