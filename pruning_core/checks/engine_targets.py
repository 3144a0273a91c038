"""Checks of latencies in engines: whether the engine serves the task, loads the bundle and holds the model. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning_core.engines import limits, llama_cpp
from pruning_core.engines.registry import ENGINES, EngineFacts
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.spec.engine_targets import in_engines
from pruning_core.spec.prune import PruneSpec

# The format that makes the form which an engine loads.
_FORMATS = {"gguf": "gguf", "onnx": "onnx", "openvino": "openvino"}


def check_engine_targets(spec: PruneSpec) -> None:
    """Check that the engines of a request's targets serve its task, and load the bundle that it asks for.

    Raises:
        UnsupportedArchitecture: One does not.
    """
    for target, name in in_engines(spec.all_targets):
        engine, options = ENGINES[name], spec.artifacts
        if not engine.serves(spec.task.type):
            fitting = [own.name for own in ENGINES.values() if own.serves(spec.task.type)]
            instead = f"name one of {', '.join(fitting)}" if fitting else "leave the target's engine out"
            raise UnsupportedArchitecture(
                f"{engine.title} does not serve models of {spec.task.type}; {instead}", param="target.engine"
            )
        form = _FORMATS.get(engine.loads)
        if form is not None and form not in options.formats:
            raise UnsupportedArchitecture(
                f"{engine.title} loads {form} files, and a latency of {target.keep:g} is asked of it; add {form} to "
                "artifacts.formats",
                param="artifacts.formats",
            )
        if options.layout == "per_layer" and _wants_a_layout(engine):
            raise UnsupportedArchitecture(
                f"{engine.title} does not load the layout per_layer, and a latency of {target.keep:g} is asked of it; take "
                "artifacts.layout serve, or stock",
                param="artifacts.layout",
            )


def _wants_a_layout(engine: EngineFacts) -> bool:
    """Return whether an engine reads layers that differ in the layout serve alone."""
    return engine.own_environment and engine.loads == "checkpoint"


def check_engines_hold(spec: PruneSpec, config: Mapping[str, Any]) -> None:
    """Check that the engines of a request's targets can hold a model.

    Raises:
        UnsupportedArchitecture: One cannot.
    """
    for _target, name in in_engines(spec.all_targets):
        why = None
        if spec.artifacts.layout == "serve" and name in limits.ENGINES:
            why = limits.reason_against(name, config)
        elif name == "llama.cpp":
            why = llama_cpp.reason_against(config, alike=spec.artifacts.layout == "stock")
        if why is not None:
            raise UnsupportedArchitecture(
                f"a latency is asked for in {ENGINES[name].title}, which cannot hold the model: {why}", param="target.engine"
            )
