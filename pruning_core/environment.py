"""The machine and the libraries of a run, for its report."""

from __future__ import annotations

import importlib.metadata
import platform
import resource

import torch

_LIBRARIES = ("coppice", "torch", "transformers", "safetensors", "numpy")


def peak_memory(device: torch.device) -> int:
    """Give the peak bytes of this process: on the GPU by its allocator, on the CPU by the resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions() -> dict[str, str]:
    """Give the versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
