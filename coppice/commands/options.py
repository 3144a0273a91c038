"""Options that describe a job, shared by ``run`` and ``prune``, and the spec that they make."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from coppice.console import ExitCode, fail
from pruning_core.spec import PruneSpec

Model = Annotated[str | None, typer.Option(help="Hub id, or a folder with config.json and model.safetensors.")]
Task = Annotated[str | None, typer.Option(help="GLUE task, e.g. glue/sst2; for others write a --spec file.")]
Data = Annotated[str | None, typer.Option(help="Folder with train and validation as Parquet, JSON Lines or CSV.")]
Sparsity = Annotated[
    list[float] | None,
    typer.Option(help="Fraction of the prunable weights to remove, 0 to 1. Repeat any target for a frontier."),
]
MacsKeep = Annotated[list[float] | None, typer.Option(help="Fraction of the MACs to keep, instead of --sparsity.")]
ParamsKeep = Annotated[list[float] | None, typer.Option(help="Fraction of all parameters to keep, instead of --sparsity.")]
LatencyKeep = Annotated[
    list[float] | None, typer.Option(help="Fraction of the measured latency to keep, instead of --sparsity.")
]
QualityFloor = Annotated[
    float | None,
    typer.Option(
        help="Share of the dense model's quality that must be kept, e.g. 0.99; the job fails below it. Without a target: find "
        "the smallest model that keeps it."
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="per_layer (default, best quality, loads with one import) or stock (loads in plain transformers as it is)."
    ),
]
Formats = Annotated[list[str] | None, typer.Option("--format", help="safetensors (always there) or onnx; repeatable.")]
Method = Annotated[str | None, typer.Option(help="fisher-cg (default), magnitude or random.")]
Samples = Annotated[int | None, typer.Option(help="Calibration samples (default 512).")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything drawn (default 0).")]
SpecFile = Annotated[Path | None, typer.Option("--spec", help="JSON file with a PruneSpec; options override its fields.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="COPPICE_API_KEY", show_envvar=True, help="cpk_...; better set in the environment."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]


def build_spec(
    spec_file: Path | None,
    *,
    model: str | None,
    task: str | None,
    data: str | None,
    sparsity: list[float] | None,
    macs_keep: list[float] | None,
    params_keep: list[float] | None,
    latency_keep: list[float] | None,
    quality_floor: float | None,
    layout: str | None,
    formats: list[str] | None,
    method: str | None,
    samples: int | None,
    seed: int | None,
) -> PruneSpec:
    """Merge a spec file and options into a validated spec. Paths become absolute.

    Raises:
        pydantic.ValidationError: The spec is wrong.
    """
    fields = _read(spec_file) if spec_file is not None else {}
    given = {"model": model, "task": task, "method": method, "seed": seed, "quality_floor": quality_floor}
    fields |= {name: value for name, value in given.items() if value is not None}
    targets = _targets(sparsity, macs_keep, params_keep, latency_keep)
    if targets:
        for name in ("sparsity", "target", "targets"):
            fields.pop(name, None)
        fields |= {"targets": targets} if len(targets) > 1 else {"target": targets[0]}
    if fields.keys().isdisjoint({"sparsity", "target", "targets", "quality_floor"}):
        options = "--sparsity, --macs-keep, --params-keep and --latency-keep, or a --quality-floor alone"
        fail(f"target is required: give one of {options}", ExitCode.BAD_INPUT)
    delivered = {"layout": layout, "formats": list(dict.fromkeys(["safetensors", *formats])) if formats else None}
    if chosen := {name: value for name, value in delivered.items() if value is not None}:
        fields["artifacts"] = {**fields.get("artifacts", {}), **chosen}
    if samples is not None:
        fields["calibration"] = {**fields.get("calibration", {}), "samples": samples}
    if data is not None:
        fields["data"] = _absolute(data)
    if isinstance(fields.get("model"), str):
        fields["model"] = _local_model(fields["model"])
    return PruneSpec.model_validate(fields)


def require_free(out: Path) -> None:
    """Refuse a folder that holds something, before any work is done for it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        fail("out: the output folder must not exist, or be empty", ExitCode.BAD_INPUT)


def _targets(
    sparsity: list[float] | None, macs: list[float] | None, params: list[float] | None, latency: list[float] | None
) -> list[dict[str, object]]:
    """Collect the targets. Beside a more specific one --sparsity gives way: what will be measured decides."""
    keep = (("macs", macs), ("params", params), ("latency", latency))
    specific: list[dict[str, object]] = [{"metric": metric, "keep": value} for metric, values in keep for value in values or ()]
    return specific or [{"metric": "sparsity", "sparsity": value} for value in sparsity or ()]


def _read(path: Path) -> dict[str, Any]:
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        fail(f"{path} is not a readable JSON file", ExitCode.BAD_INPUT)
    if not isinstance(document, Mapping):
        fail(f"{path} must hold a JSON object", ExitCode.BAD_INPUT)
    return dict(cast("Mapping[str, Any]", document))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _local_model(reference: str) -> str:
    """Take a folder that exists for a path, as people expect at a command line; anything else may be a Hub id."""
    looks_like_path = reference.startswith(("/", "./", "../", "~"))
    return _absolute(reference) if looks_like_path or Path(reference).is_dir() else reference
