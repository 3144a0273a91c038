"""The form of a checkpoint that an engine loads, and the dense model in the same form, to be timed beside it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from pruning_core.artifacts.exports.base import Exported
from pruning_core.artifacts.exports.registry import EXPORTERS, export_all
from pruning_core.artifacts.onnx import ONNX_PATH, ExportFailed, export_onnx
from pruning_core.engines.refusing import without_file
from pruning_core.engines.registry import Loads
from pruning_core.errors import PruningError
from pruning_core.files.companions import companions_of
from pruning_core.report.engines import ExportReport
from pruning_core.spec.artifacts import ArtifactSpec
from pruning_core.tasks.base import TaskModel

if TYPE_CHECKING:
    from pruning_core.artifacts.engines.prover import Checkpoint

# GGUF types, the most exact first, and the tolerances that hold for each.
_GGUF_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "Q8_0": "q8"}
_COARSE = "q4"


@dataclass(frozen=True, slots=True)
class Form:
    """A form that is there.

    Attributes:
        path: File or folder in the checkpoint; a point for the checkpoint itself.
        dtype: Type that an engine computes in, by `judging.TOLERANCES`.
        kind: The variant of the format.
        notes: What people should know of it.
    """

    path: str
    dtype: str = "float32"
    kind: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoForm:
    """Why there is no such form, as a sentence."""

    reason: str


def form_of(loads: Loads, checkpoint: Checkpoint) -> Form | NoForm:
    """Return the form that an engine loads, the most exact one there is."""
    match loads:
        case "checkpoint":
            return Form(".")
        case "onnx":
            if checkpoint.onnx is not None:
                return Form(checkpoint.onnx)
            return NoForm(without_file(loads, checkpoint.onnx_problem))
        case "gguf":
            return _of_exports(loads, checkpoint.exports, _GGUF_DTYPES)
        case "openvino":
            return _of_exports(loads, checkpoint.exports, {"FP32": "float32", "": "float32", "FP16": "float16"})
        case _:
            assert_never(loads)


def _of_exports(loads: Loads, exports: tuple[ExportReport, ...], dtypes: dict[str, str]) -> Form | NoForm:
    own = [row for row in exports if row.format == loads]
    there = [row for row in own if row.status == "ok" and row.path is not None]
    if not there:
        why = next((row.reason for row in own if row.reason), None)
        return NoForm(without_file(loads, why))
    order = list(dtypes)
    best = min(there, key=lambda row: order.index(row.kind) if row.kind in dtypes else len(order))
    notes = (f"loaded {best.kind}",) if best.kind else ()
    return Form(best.path or ".", dtypes.get(best.kind, _COARSE), best.kind, notes)


def dense_form(
    loads: Loads, form: Form, dense: TaskModel, options: ArtifactSpec, folder: Path, *, engines: Path | None = None
) -> Path | None:
    """Return the dense model in the same form, made in a folder where it must be made; None where it can't be.

    Raises:
        OSError: There is no room.
    """
    match loads:
        case "checkpoint":
            return dense.source
        case "onnx":
            folder.mkdir()
            try:
                export_onnx(dense, folder)
            except ExportFailed:
                return None
            return folder / ONNX_PATH
        case "gguf" | "openvino":
            return _exported(loads, form, dense, options, folder, engines=engines)
        case _:
            assert_never(loads)


def _exported(
    loads: Loads, form: Form, dense: TaskModel, options: ArtifactSpec, folder: Path, *, engines: Path | None
) -> Path | None:
    """Write the dense model by the format's own exporter, into a copy of its checkpoint."""
    if loads not in EXPORTERS:
        return None
    folder.mkdir()
    for name in (
        *(path.name for path in sorted(dense.source.glob("*.safetensors*"))),
        *companions_of(dense.source),
        "config.json",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(dense.source / name, folder / name)
    asked = {"formats": ("safetensors", loads), "engines": (), "layout": "per_layer"}
    asked |= {"gguf": (form.kind,)} if loads == "gguf" else {}
    try:
        rows = export_all(Exported(folder, dense, dense, options.but(**asked), engines=engines))
    except PruningError:
        return None
    return next((folder / row.path for row in rows if row.status == "ok" and row.path is not None), None)
