"""A report as a worker would send it."""

_SUBLAYER = {"solver": "cholesky", "status": "converged", "iterations": 0, "residual_before": 0.2, "residual_after": 0.1}

REPORT = {
    "model": "org/name",
    "task": "glue/sst2",
    "method": "fisher-cg",
    "recovery": "weights",
    "target": {"metric": "sparsity", "requested": 0.5, "achieved": 0.501, "tolerance": 0.01},
    "sparsity": {"achieved": 0.501},
    "macs": {"dense": 100, "pruned": 50},
    "parameters": {"dense": 200, "pruned": 150},
    "bytes": {"dense": 400, "pruned": 300},
    "quality": {"metric": "accuracy", "dense": 0.9, "pruned": 0.89, "samples": 10},
    "latency_ms": {
        "dense": 2.0,
        "pruned": 1.0,
        "speedup": 2.0,
        "dense_iqr": 0.1,
        "pruned_iqr": 0.1,
        "batch": 8,
        "length": 128,
        "repeats": 20,
        "threads": 1,
        "device": "cpu",
    },
    "seconds": {"total": 1.0, "by_stage": {"load": 1.0}},
    "layers": [
        {
            "layer": 0,
            "dense_heads": 12,
            "kept_heads": 1,
            "head_indices": [3],
            "dense_neurons": 100,
            "kept_neurons": 50,
            "attention": _SUBLAYER,
            "ffn": _SUBLAYER,
        }
    ],
    "data": {"fingerprint": "sha256:0", "samples": 8, "tokens": 80, "mean_length": 10.0},
    "outlook": {"points": [{"keep": 0.5, "parameters": 150, "bytes": 300, "cost": 0.2}]},
    "peak_memory_bytes": 1,
    "seed": 0,
    "device": "cpu",
    "versions": {"python": "3.11"},
}
