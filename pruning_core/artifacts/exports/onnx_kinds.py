"""Further kinds of the ONNX graph, made of the first: weights of two bytes, or weights and activations of 8 bits."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path

from pruning_core.artifacts.exports.base import Exported, failed
from pruning_core.artifacts.exports.proof import LIKENESS, NotProven, Proven, likeness, off_by, prove
from pruning_core.artifacts.onnx import ONNX_PATH, sentence
from pruning_core.artifacts.onnx_graph import store_, widen_
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.report.engines import ExportReport
from pruning_core.spec.artifacts import OnnxKind

# Names by which transformers.js and the Hub know these kinds.
PATHS = {"float16": "onnx/model_fp16.onnx", "int8": "onnx/model_int8.onnx"}
INSTALL = "onnxruntime is not installed where the job ran: pip install 'coppice-prune[onnx]'"

# Weights of two bytes are rounded to 1 part in 2000; what a network makes of it stays below this share of the largest output.
_TOLERANCE = 1e-2


def export(asked: Exported) -> tuple[ExportReport, ...]:
    """Write and run each further kind that was asked for."""
    kinds: list[OnnxKind] = [kind for kind in asked.options.onnx if kind != "stored"]
    if not (asked.folder / ONNX_PATH).exists():
        return tuple(failed("onnx", kind, "there is no ONNX graph to make it of") for kind in kinds)
    return tuple(_exported(asked, kind) for kind in kinds)


def _exported(asked: Exported, kind: OnnxKind) -> ExportReport:
    first, path = asked.folder / ONNX_PATH, asked.folder / PATHS[kind]
    if importlib.util.find_spec("onnxruntime") is None:
        return failed("onnx", kind, INSTALL)
    if kind == "float16" and asked.pruned.stored_dtype == "float16":
        note = f"the checkpoint has weights of float16, and so has {ONNX_PATH}"
        size = first.stat().st_size
        return ExportReport(format="onnx", kind=kind, status="ok", path=ONNX_PATH, bytes=size, notes=(note,))
    try:
        _write(first, path, kind)
        found = prove(asked, "onnxruntime", path)
    except NotProven as error:
        path.unlink(missing_ok=True)
        return failed("onnx", kind, f"onnxruntime {error}")
    except Exception as error:
        path.unlink(missing_ok=True)
        raise_if_exhausted(error, f"the {kind} graph was made")
        return failed("onnx", kind, f"the graph cannot be changed ({type(error).__name__}: {sentence(error)})")
    problem = _problem(kind, found)
    if problem is not None:
        path.unlink()
        return failed("onnx", kind, problem)
    return ExportReport(
        format="onnx",
        kind=kind,
        status="ok",
        path=PATHS[kind],
        bytes=path.stat().st_size,
        max_difference=found.max_difference,
        latency_ms=found.latency_ms,
        notes=(off_by(found),) if kind == "int8" else (),
    )


def _problem(kind: OnnxKind, found: Proven) -> str | None:
    """Return why a kind does not check out; None if it does."""
    if kind == "float16" and found.max_difference > _TOLERANCE:
        return f"onnxruntime gives outputs that differ by {found.max_difference:.1e} of the largest, more than {_TOLERANCE:g}"
    return f"onnxruntime gives {likeness(found)}" if found.mean_difference > LIKENESS else None


def _write(first: Path, path: Path, kind: OnnxKind) -> None:
    import onnx_ir as ir

    model = ir.load(first)
    widen_(model.graph)
    if kind == "float16":
        store_(model.graph, "float16", exact=False)
        ir.save(model, path)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = ir.to_proto(model)
    del whole.graph.value_info[:]  # the quantiser infers shapes anew, and takes some of the exporter's for wrong
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises everyone to optimise the graph first
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Weights of 7 bits: products of 8 bits overflow on processors without VNNI, and nothing would say so.
            quantize_dynamic(
                whole,
                path,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )
    finally:
        logging.disable(previous)
