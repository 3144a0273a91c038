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
Sparsity = Annotated[float | None, typer.Option(help="Fraction of the prunable weights to remove, 0 to 1.")]
MacsKeep = Annotated[float | None, typer.Option(help="Fraction of the MACs to keep, instead of --sparsity.")]
ParamsKeep = Annotated[float | None, typer.Option(help="Fraction of all parameters to keep, instead of --sparsity.")]
Method = Annotated[str | None, typer.Option(help="fisher-cg (default), magnitude or random.")]
Samples = Annotated[int | None, typer.Option(help="Calibration samples (default 512).")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything drawn (default 0).")]
SpecFile = Annotated[Path | None, typer.Option("--spec", help="JSON file with a PruneSpec; options override its fields.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]


def build_spec(
    spec_file: Path | None,
    *,
    model: str | None,
    task: str | None,
    data: str | None,
    sparsity: float | None,
    macs_keep: float | None,
    params_keep: float | None,
    method: str | None,
    samples: int | None,
    seed: int | None,
) -> PruneSpec:
    """Merge a spec file and options into a validated spec. Paths become absolute.

    Raises:
        pydantic.ValidationError: The spec is wrong.
    """
    fields = _read(spec_file) if spec_file is not None else {}
    given = {"model": model, "task": task, "method": method, "seed": seed}
    fields |= {name: value for name, value in given.items() if value is not None}
    targets = {"sparsity": sparsity, "macs": macs_keep, "params": params_keep}
    chosen = {metric: value for metric, value in targets.items() if value is not None}
    # With both --sparsity and --macs-keep the more specific one decides: MACs or parameters are what will be measured.
    if len(chosen) > 1:
        chosen.pop("sparsity", None)
    if len(chosen) > 1:
        fail("give one of --macs-keep and --params-keep, not both", ExitCode.BAD_INPUT)
    for metric, value in chosen.items():
        fields.pop("sparsity", None)
        key = "sparsity" if metric == "sparsity" else "keep"
        fields["target"] = {"metric": metric, key: value}
    if samples is not None:
        fields["calibration"] = {**fields.get("calibration", {}), "samples": samples}
    if data is not None:
        fields["data"] = _absolute(data)
    if isinstance(fields.get("model"), str):
        fields["model"] = _local_model(fields["model"])
    return PruneSpec.model_validate(fields)


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
