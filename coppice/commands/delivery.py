"""The options that say what a bundle is to hold, and what they imply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, cast

import typer

from pruning_core.engines.registry import ENGINES
from pruning_core.spec.tasks import KINDS, TaskType

Layout = Annotated[
    str | None,
    typer.Option(
        help="per_layer (default, best quality, loads with one import), stock (loads in plain transformers, without import) "
        "or serve (widths that the engines named by --engine can hold)."
    ),
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="safetensors (always there), onnx, gguf, openvino or compressed-tensors; repeatable."),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        help="An engine that the bundle should run in, such as vllm, llama.cpp or mlx; repeatable: the report says whether it "
        "does. Implies --layout serve for those that take layers which differ, and the --format that it loads. The proof runs "
        "it where it is installed (coppice engines).",
    ),
]
LatencyEngine = Annotated[
    str | None,
    typer.Option(
        help="The engine, such as vllm, in which --latency-keep is planned, by a table measured there, and then measured; "
        "without it: torch on this device. Implies --engine."
    ),
]
LatencyPhase = Annotated[
    str | None,
    typer.Option(help="prefill or decode (default): what of a text generator --latency-engine times."),
]
Gguf = Annotated[
    list[str] | None,
    typer.Option("--gguf", help="Type of a GGUF file, such as F16, Q8_0 or Q4_K_M; repeatable. Implies --format gguf."),
]
Quantization = Annotated[str | None, typer.Option(help="fp8, int8 or w4a16. Implies --format compressed-tensors.")]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict", help="Fail the job where a format cannot be delivered, or the bundle does not run in one of the engines."
    ),
]

# Engines of the layout serve; others take what every layout has, or files of their own.
_TAKE_WIDTHS = frozenset({"vllm", "vllm-plugin", "llama.cpp", "mlx"})


class Asked(Protocol):
    """The options as they were given."""

    @property
    def layout(self) -> str | None:
        """The layout."""
        ...

    @property
    def formats(self) -> list[str] | None:
        """Formats beside safetensors."""
        ...

    @property
    def engines(self) -> list[str] | None:
        """Engines by name."""
        ...

    @property
    def latency_engine(self) -> str | None:
        """The engine that a latency is asked for in."""
        ...

    @property
    def gguf(self) -> list[str] | None:
        """Types of GGUF files."""
        ...

    @property
    def quantization(self) -> str | None:
        """The scheme of compressed-tensors."""
        ...

    @property
    def strict(self) -> bool | None:
        """Whether what cannot be delivered fails the job."""
        ...


def delivered(asked: Asked, given: Mapping[str, Any], task: object) -> dict[str, Any]:
    """Return the fields of ``artifacts`` that options set, and those that they imply.

    Args:
        asked: The options.
        given: The fields of ``artifacts`` in the spec file.
        task: The field ``task``. An engine that does not serve it implies no format.
    """
    named = list(dict.fromkeys([*(asked.engines or ()), *((asked.latency_engine,) if asked.latency_engine else ())]))
    kind = _type_of(task)
    served = [own for name in named if (own := ENGINES.get(name)) is not None and own.serves(kind)]
    formats = [
        *(asked.formats or ()),
        *(("gguf",) if asked.gguf else ()),
        *(("compressed-tensors",) if asked.quantization else ()),
        *(own.loads for own in served if own.loads != "checkpoint"),
    ]
    found = {
        "layout": asked.layout,
        "engines": asked.engines,
        "gguf": asked.gguf,
        "quantization": asked.quantization,
        "strict": asked.strict,
        "formats": list(dict.fromkeys(["safetensors", *given.get("formats", ()), *formats])) if formats else None,
    }
    chosen = {name: value for name, value in found.items() if value is not None}
    if "layout" not in {**given, **chosen} and not _TAKE_WIDTHS.isdisjoint(named):
        chosen["layout"] = "serve"
    return chosen


def _type_of(task: object) -> TaskType:
    """Return the type of a task as a spec states it; named tasks classify."""
    stated = cast("Mapping[str, object]", task).get("type") if isinstance(task, Mapping) else task
    return stated if isinstance(stated, str) and stated in KINDS else "text-classification"
