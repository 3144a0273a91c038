"""The formats that are made of a written checkpoint, and the way to their functions."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from pruning_core.artifacts.exports.base import Exported, Exporter
from pruning_core.report.engines import ExportReport

# By format of `spec.artifacts`; an entry is imported when a job asks for it, with what it needs.
EXPORTERS: Mapping[str, str] = {
    "compressed-tensors": "pruning_core.artifacts.exports.compressed_tensors:export",
    "gguf": "pruning_core.artifacts.exports.gguf.export:export_gguf",
    "onnx": "pruning_core.artifacts.exports.onnx_kinds:export",
    "openvino": "pruning_core.artifacts.exports.openvino:export",
}


def export_all(asked: Exported) -> tuple[ExportReport, ...]:
    """Write every further format that a request asks for.

    A paged model has none: they are made of all of it at once.
    """
    wanted = [name for name in asked.options.formats if name in EXPORTERS]
    if asked.options.onnx == ("stored",) and "onnx" in wanted:
        wanted.remove("onnx")  # the first graph has a report of its own
    if asked.pruned.pages is not None:
        reason = "the model is larger than the memory of its device, and this form is made of all of it at once"
        return tuple(ExportReport(format=name, status="failed", reason=reason) for name in wanted)
    rows: list[ExportReport] = []
    for name in wanted:
        module, _, function = EXPORTERS[name].partition(":")
        rows += cast("Exporter", getattr(importlib.import_module(module), function))(asked)
    return tuple(rows)
