"""Tables of `benchmarks.same`: the cells to run, the expected differences, the texts that may change, and what is left out.

A cell is a spec for ``coppice run``. Its name consists of the model, the method and what is special. A cell uses only fields of
the versioned spec, so that it means the same in both trees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# Intended differences: shell patterns of a cell, or of "cell:file", with the reason. Any other difference fails the run.
EXPECTED: dict[str, str] = {
    "*:*report.json": "against 1ac4d00: residual_after and iterations are those of the weights delivered (defects 14 and "
    "17), the refit's solver is called cg (defect 10), ONNX's difference is taken in float64 (defect 1)",
    "*:*report.html": "against 1ac4d00: it shows these values, in plainer words; one sentence says targets for page and report",
}

# Text files whose wording may change: shell patterns of their path in a bundle, with the reason. Their differences are shown
# and do not fail the run; --allow adds patterns.
TEXTS: dict[str, str] = {
    "*README.md": "against 1ac4d00: the card names the distribution that exists (defect 20)",
    "*modeling_coppice.py": "against 1ac4d00: the loader's docstrings and comments; tests/upgrade loads old and new bundles",
}

LEFT_OUT = {
    "targets of latency": "the plan depends on measured times",
    "models that do not fit into memory": "whether one fits depends on the free memory",
    "GPU, several threads, several training processes": "sums in another order are rounded differently",
    "ONNX of encoder-decoders": "refused at submit",
    "stock layout of encoder-decoders, paged training": "refused at submit",
    "what a command prints": "the report contains it; for a failed cell the last words are compared",
}

_TASKS: dict[str, dict[str, Any]] = {
    "bert": {"type": "text-classification", "columns": {"text": ["text"], "label": "label"}, "metric": "accuracy"},
    "llama": {"type": "text-generation", "columns": {"text": ["text"]}, "metric": "perplexity"},
    "t5": {"type": "summarization", "columns": {"text": ["text"], "label": "summary"}, "metric": "loss"},
}
_SMALL: dict[str, Any] = {
    "calibration": {"samples": 48, "max_length": 32, "batch_tokens": 256, "precision": "float32"},
    "latency": {"batch": 2, "length": 16, "repeats": 3},
}
_HALF = {"target": {"metric": "macs", "keep": 0.5}}
_SPARSE = {"target": {"metric": "sparsity", "sparsity": 0.5}}
_BFLOAT16 = {"calibration": {**_SMALL["calibration"], "precision": "bfloat16"}}
_STOCK = {"artifacts": {"layout": "stock"}}
_PAGED = {"memory": {"weights": "paged"}}
_STEPS = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "holdout": 0.1}


@dataclass(frozen=True)
class Cell:
    """One job.

    Attributes:
        name: Name of the cell.
        spec: The spec as JSON, in which ``{inputs}`` stands for the folder of models and data.
        exit: Exit code that the job should end with.
    """

    name: str
    spec: str
    exit: int = 0

    def fill(self, inputs: str) -> str:
        """Return the spec as JSON, for a folder of inputs."""
        return self.spec.replace("{inputs}", inputs)


def _cell(model: str, method: str, special: str = "", *fields: dict[str, Any], ends: int = 0, **options: Any) -> Cell:
    """Make a cell.

    Args:
        model: Name of the model, and of the folders with the model and its data.
        method: Name of the method in a spec.
        special: End of the cell's name.
        fields: Fields of the spec beside the usual ones; later ones win.
        ends: Exit code that the job should end with.
        options: Options of the method.
    """
    spec: dict[str, Any] = {
        "model": f"{{inputs}}/{model}",
        "task": {**_TASKS[model], "dataset": f"{{inputs}}/data/{model}"},
        "method": {"name": method, **options},
        **_SMALL,
    }
    for own in fields:
        spec.update(own)
    return Cell("-".join(part for part in (model, method, special) if part), json.dumps(spec), ends)


def _repair(**options: Any) -> dict[str, Any]:
    return {"recovery": options}


def _units() -> list[Cell]:
    """Return the cells of methods that remove heads and neurons."""
    both = {"targets": [{"metric": "macs", "keep": 0.6}, {"metric": "macs", "keep": 0.35}]}
    mixed = {"targets": [{"metric": "params", "keep": 0.8}, {"metric": "sparsity", "sparsity": 0.6}]}
    written = {"artifacts": {"dtype": "bfloat16"}}
    onnx = {"artifacts": {"formats": ["safetensors", "onnx"]}}
    stock_onnx = {"artifacts": {"layout": "stock", "formats": ["safetensors", "onnx"]}}
    rouge = {"task": {**_TASKS["t5"], "metric": "rougeL", "dataset": "{inputs}/data/t5", "prefix": "w1 "}}
    floor = {"quality_floor": 1.0}
    return [
        *(_cell(model, "fisher-cg", "", _HALF) for model in _TASKS),
        _cell("bert", "fisher-cg", "stock", _HALF, _STOCK),
        _cell("llama", "fisher-cg", "stock-onnx", _HALF, stock_onnx),
        _cell("bert", "fisher-cg", "bfloat16-onnx", _HALF, _BFLOAT16, onnx),
        _cell("llama", "fisher-cg", "bfloat16-stored", _HALF, _BFLOAT16, written),
        _cell("bert", "fisher-cg", "masks-cg", _HALF, _repair(kind="masks", solver="cg")),
        _cell("llama", "fisher-cg", "masks", _HALF, _repair(kind="masks")),
        _cell("t5", "fisher-cg", "unrepaired-rearranged", _HALF, _repair(kind="none"), rearrange=True),
        _cell("bert", "fisher-cg", "lsmr", _HALF, _repair(solver="lsmr")),
        _cell("bert", "fisher-cg", "cg-labels", _SPARSE, _repair(solver="cg"), labels="use", representation=0),
        _cell("llama", "fisher-cg", "pcg", _HALF, _repair(solver="pcg", max_iterations=5)),
        _cell("bert", "fisher-cg", "frontier", both),
        _cell("t5", "fisher-cg", "frontier-cholesky", mixed, _repair(solver="cholesky")),
        _cell("llama", "fisher-cg", "floor", {"quality_floor": 0.8}),
        _cell("llama", "fisher-cg", "paged", _HALF, _PAGED),
        _cell("t5", "fisher-cg", "paged", _HALF, _PAGED),
        _cell("llama", "fisher-cg", "shards", _HALF, {"artifacts": {"shard_mb": 1}}),
        _cell("bert", "magnitude", "stock", _SPARSE, _STOCK),
        _cell("llama", "magnitude", "", _HALF),
        _cell("t5", "magnitude", "rouge", _HALF, rouge),
        _cell("bert", "random", "floor-missed", _HALF, floor, _repair(kind="none"), ends=1),
        _cell("llama", "random", "unrepaired", _HALF, _repair(kind="none"), {"seed": 7}),
        _cell("t5", "random", "stored-bfloat16", _HALF, written),
    ]


def _zeros() -> list[Cell]:
    """Return the cells of methods that set weights to zero."""
    two = {"targets": [{"metric": "sparsity", "sparsity": 0.5}, {"metric": "sparsity", "sparsity": 0.7}]}
    plain = {"artifacts": {"formats": ["safetensors"]}}
    sr_ste = {**_STEPS, "finish": "sr-ste"}
    dense = {**_STEPS, "start": "dense"}
    return [
        *(_cell(model, "admm-pattern", "2of4") for model in _TASKS),
        _cell("bert", "admm-pattern", "4x4", {"artifacts": {"layout": "per_layer"}}, pattern="4x4:8"),
        _cell("llama", "admm-pattern", "4x4-any", pattern="4x4", pool=None),
        _cell("llama", "admm-pattern", "unstructured-frontier", two, pattern="unstructured"),
        _cell("t5", "admm-pattern", "unstructured-bfloat16", _SPARSE, _BFLOAT16, pattern="unstructured"),
        _cell("bert", "admm-pattern", "sparsegpt", selection="sparsegpt"),
        _cell("llama", "admm-pattern", "wanda-unrepaired", _repair(kind="none"), selection="wanda"),
        _cell("bert", "admm-pattern", "paged", _PAGED),
        _cell("bert", "admm-pattern", "trained", tier="trained", training=_STEPS),
        _cell("llama", "admm-pattern", "trained-sr-ste", tier="trained", training=sr_ste),
        _cell("t5", "admm-pattern", "trained", _SPARSE, tier="trained", training=_STEPS, pattern="unstructured"),
        *(_cell(model, "block-lasso", "", _SPARSE) for model in _TASKS),
        _cell("llama", "block-lasso", "columns-uniform", _SPARSE, plain, block="32x32", segment="column", threshold="uniform"),
        _cell("t5", "block-lasso", "magnitude-paged", _SPARSE, _PAGED, selection="magnitude"),
        _cell("bert", "block-lasso", "trained", _SPARSE, tier="trained", training=_STEPS),
        _cell("llama", "block-lasso", "trained-dense", _SPARSE, tier="trained", training=dense),
    ]


CELLS: tuple[Cell, ...] = (*_units(), *_zeros())
