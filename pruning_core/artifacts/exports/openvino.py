"""OpenVINO's own form, ``openvino/model.xml`` and ``model.bin``: made of the model itself, weights of two bytes."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from pruning_core.artifacts.exports.base import Exported, failed
from pruning_core.artifacts.exports.proof import NotProven, prove
from pruning_core.artifacts.onnx import as_graph, sentence
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.report.engines import ExportReport
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel

FORMAT = "openvino"
PATH = "openvino/model.xml"
INSTALL = "it is not installed where the job ran: pip install 'coppice-prune[engines]'"

# Outputs in float32 with weights that were rounded to float16, relative to the largest output.
_TOLERANCE = 1e-2


def export(asked: Exported) -> tuple[ExportReport, ...]:
    """Write the form, and run it in OpenVINO in float32."""
    kind, path = "FP16", asked.folder / PATH
    if importlib.util.find_spec("openvino") is None:
        return (failed(FORMAT, kind, INSTALL),)
    if not KINDS[asked.pruned.task_type].one_graph:
        return (failed(FORMAT, kind, f"{asked.pruned.task_type} needs a graph for the encoder and one for the decoder"),)
    try:
        write_graph(asked.pruned, path)
        found = prove(asked, "openvino", path)
    except NotProven as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        return (failed(FORMAT, kind, f"OpenVINO {error}"),)
    except Exception as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise_if_exhausted(error, "OpenVINO's form was made")
        return (failed(FORMAT, kind, f"OpenVINO cannot express the model ({type(error).__name__}: {sentence(error)})"),)
    if found.max_difference > _TOLERANCE:
        shutil.rmtree(path.parent)
        reason = f"OpenVINO gives outputs that differ by {found.max_difference:.1e} of the largest, more than {_TOLERANCE:g}"
        return (failed(FORMAT, kind, reason),)
    decodes = (
        ("every step reads the whole text: the graph has no cache",) if asked.pruned.task_type == "text-generation" else ()
    )
    return (
        ExportReport(
            format=FORMAT,
            kind=kind,
            status="ok",
            path=PATH,
            bytes=sum(own.stat().st_size for own in path.parent.iterdir()),
            max_difference=found.max_difference,
            latency_ms=found.latency_ms,
            notes=decodes,
        ),
    )


def write_graph(model: TaskModel, path: Path) -> None:
    """Trace the model with free batch size and length, and have OpenVINO read the trace."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - nothing is told to anyone
    import openvino

    family = model.family
    inputs = family.probe_inputs(model, family.example, model.longest(8)).to(model.device).inputs
    free: Any = torch.export.Dim.DYNAMIC
    shapes = {name: {0: free} if name == "pixel_values" else {0: free, 1: free} for name in inputs}
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad(), as_graph(model) as function:
            warnings.simplefilter("ignore")
            program = torch.export.export(function, (), kwargs=inputs, dynamic_shapes=shapes, strict=False)
            graph = openvino.convert_model(program)
    finally:
        logging.disable(previous)
    for output, name in zip(graph.outputs, family.reads, strict=True):
        output.get_tensor().set_names({name})
    path.parent.mkdir()
    openvino.save_model(graph, path, compress_to_fp16=True)
