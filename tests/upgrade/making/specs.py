"""What is asked of the service: bodies of requests as people write them, for every method, target, tier and task."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]

# So that a job on a tiny model takes seconds.
SMALL: Body = {
    "calibration": {"samples": 32, "max_length": 24, "batch_tokens": 512},
    "evaluation": {"max_samples": 24},
    "latency": {"batch": 1, "length": 8, "repeats": 3},
}
HALF = {"metric": "macs", "keep": 0.5, "tolerance": 0.1}


def task_of(kind: str, dataset: str) -> Body:
    """Give the task of a bundle over the data of `models.write_data`."""
    if kind == "llama":
        return {"type": "text-generation", "dataset": dataset, "columns": {"text": ["sentence"]}, "metric": "perplexity"}
    columns: Body = {"text": ["sentence"], "label": "other" if kind == "t5" else "label"}
    if kind == "t5":
        return {"type": "summarization", "dataset": dataset, "columns": columns, "metric": "rouge1"}
    return {"type": "text-classification", "dataset": dataset, "columns": columns, "metric": "accuracy"}


# Of which bundles are made: the kind of model, and what its spec says beside model, task and `SMALL`.
BUNDLES: dict[str, tuple[str, Body]] = {
    "bert": ("bert", {"target": HALF}),
    "llama": ("llama", {"target": HALF}),
    "t5": ("t5", {"target": HALF}),
    "stock": ("bert", {"target": HALF, "artifacts": {"layout": "stock", "dtype": "float16"}}),
    "pattern": ("bert", {"method": {"name": "admm-pattern", "pattern": "2:4"}}),
    "blocks": ("bert", {"sparsity": 0.8, "method": {"name": "block-lasso", "block": "4x4"}}),
    "frontier": ("bert", {"targets": [{**HALF, "keep": 0.7}, {**HALF, "keep": 0.4}]}),
}

# Asked of every checkpoint of every bundle: does a new job take it as its model?
TAKERS: tuple[Body, ...] = (
    {"target": HALF},
    {"target": HALF, "method": "magnitude"},
    {"method": "admm-pattern"},
    {"sparsity": 0.5, "method": {"name": "block-lasso", "block": "4x4"}},
)

_MODEL = {"model": "org/model", "task": "glue/sst2"}
_TYPES: dict[str, tuple[Body, str]] = {
    "text-classification": ({"text": ["a", "b"], "label": "y"}, "matthews"),
    "multi-label-classification": ({"text": ["a"], "label": "y"}, "f1"),
    "regression": ({"text": ["a"], "label": "y"}, "spearman"),
    "feature-extraction": ({"text": ["a"]}, "cosine"),
    "sentence-similarity": ({"text": ["a", "b"], "label": "y"}, "spearman"),
    "token-classification": ({"text": ["a"], "label": "y"}, "f1"),
    "question-answering": ({"text": ["a", "b"], "label": "y"}, "exact_match"),
    "fill-mask": ({"text": ["a"]}, "loss"),
    "text-generation": ({"text": ["a"]}, "perplexity"),
    "summarization": ({"text": ["a"], "label": "y"}, "rougeL"),
    "translation": ({"text": ["a"], "label": "y"}, "bleu"),
    "image-classification": ({"image": "a", "label": "y"}, "accuracy"),
}

# Models and data by ids of the Hub: they are accepted as they are, and no job of them is ever run.
SPECS: dict[str, Body] = {
    "plain": {**_MODEL, "sparsity": 0.5},
    "full-form": {
        "version": 1,
        "model": "org/model",
        "revision": "v1.2",
        "task": {
            "name": "mine",
            "type": "summarization",
            "dataset": "org/texts",
            "config": "en",
            "train_split": "fit",
            "validation_split": "test",
            "columns": {"text": ["text"], "label": "summary"},
            "metric": "rouge2",
            "prefix": "summarize: ",
        },
        "target": {"metric": "params", "keep": 0.75, "tolerance": 0.02},
        "quality_floor": {"kind": "absolute", "value": 0.2},
        "method": {"name": "fisher-cg", "labels": "auto", "representation": 0.5, "rearrange": True},
        "recovery": {
            "kind": "masks",
            "solver": "lsmr",
            "damping": 0.2,
            "tolerance": 1e-4,
            "max_iterations": 50,
            "holdout": 0.25,
        },
        "calibration": {
            "samples": 256,
            "sampling": "uniform",
            "max_length": 64,
            "batch_tokens": 2048,
            "precision": "bfloat16",
            "memory_mb": 64,
        },
        "memory": {"weights": "resident"},
        "evaluation": {"max_samples": 100, "max_length": 96},
        "latency": {"batch": 2, "length": 32, "threads": 2, "repeats": 5},
        "artifacts": {"dtype": "float16", "layout": "stock", "formats": ["safetensors"], "shard_mb": 100, "strict": True},
        "seed": 7,
        "metadata": {"run": "7", "team": "search"},
        "priority": 3,
    },
    "paper": {
        **_MODEL,
        "target": {"metric": "macs", "keep": 0.5},
        "method": {"name": "fisher-cg", "labels": "use", "representation": 0, "rearrange": True},
        "recovery": {"kind": "masks", "solver": "cg"},
        "artifacts": {"formats": ["safetensors", "onnx"]},
    },
    "magnitude": {**_MODEL, "sparsity": 0.5, "method": "magnitude", "recovery": {"kind": "none"}},
    "random": {**_MODEL, "target": {"metric": "params", "keep": 0.7}, "method": {"name": "random"}, "seed": 3},
    "latency": {**_MODEL, "target": {"metric": "latency", "keep": 0.5}, "latency": {"threads": 4}},
    "frontier": {**_MODEL, "targets": [{"metric": "macs", "keep": 0.7}, {"metric": "sparsity", "sparsity": 0.5}]},
    "floor": {**_MODEL, "quality_floor": 0.99},
    "paged": {**_MODEL, "sparsity": 0.5, "memory": {"weights": "paged"}},
    "pattern": {**_MODEL, "method": "admm-pattern"},
    "pattern-of-blocks": {
        **_MODEL,
        "method": {"name": "admm-pattern", "pattern": "4x4:8", "pool": None, "iterations": 20, "damping": 0.02},
        "recovery": {"kind": "none"},
    },
    "pattern-unstructured": {
        **_MODEL,
        "sparsity": 0.7,
        "method": {"name": "admm-pattern", "pattern": "unstructured", "selection": "sparsegpt", "refit_steps": 4},
        "artifacts": {"formats": ["safetensors"]},
    },
    "pattern-trained": {
        **_MODEL,
        "method": {
            "name": "admm-pattern",
            "tier": "trained",
            "training": {"epochs": 1, "learning_rate": 1e-4, "finish": "sr-ste", "penalty": "coupled", "max_train_rows": 64},
        },
    },
    "pattern-paged": {**_MODEL, "method": {"name": "admm-pattern", "pattern": "4:8"}, "memory": {"weights": "paged"}},
    "blocks": {**_MODEL, "sparsity": 0.6, "method": "block-lasso"},
    "blocks-trained": {
        **_MODEL,
        "sparsity": 0.8,
        "method": {
            "name": "block-lasso",
            "block": "64x64",
            "segment": "column",
            "tier": "trained",
            "threshold": "uniform",
            "training": {"start": "dense", "lasso": 0.4, "strength": 2, "milestones": 4, "distillation": 1, "dropout": True},
        },
    },
    **{
        f"task-{name}": {
            "model": "org/model",
            "data": "org/data",
            "task": {"type": name, "columns": columns, "metric": metric},
            "sparsity": 0.5,
        }
        for name, (columns, metric) in _TYPES.items()
    },
}
