"""The machine and the libraries of a run: its device, its peak memory, and versions for its report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
from pathlib import Path

import torch

from pruning_core.errors import PruningError
from pruning_core.report.reproduction import MachineReport

# Name of each library in a report, and the distribution that contains it.
_LIBRARIES = {"coppice": "coppice-prune"} | {name: name for name in ("torch", "transformers", "safetensors", "numpy")}


def choose_device(name: str | None) -> torch.device:
    """Return the device to run on: the named one; without a name, a GPU if there is one, or else the CPU.

    Raises:
        PruningError: This machine has no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PruningError("must be cpu, cuda or cuda with a number, such as cuda:1", param="device") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PruningError(f"torch sees {torch.cuda.device_count()} CUDA devices on this machine; use cpu", param="device")
    if device.type not in ("cpu", "cuda"):
        raise PruningError("must be cpu, cuda or cuda with a number, such as cuda:1", param="device")
    return device


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: of torch's allocator on a GPU, of the resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # `ru_maxrss` of a process starts at what its parent had when it forked
    if status.is_file():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> MachineReport:
    """Describe this machine, and the threads that torch computes with now."""
    return MachineReport(
        system=f"{platform.system()} {platform.machine()}",
        processor=processor_name() or platform.machine() or "unknown",
        instructions=torch.backends.cpu.get_cpu_capability(),
        cores=os.cpu_count() or 1,
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        threads=torch.get_num_threads(),
    )


def processor_name() -> str:
    """Give the name of the processor, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def versions() -> dict[str, str]:
    """Return the versions of Python and the libraries that the numbers depend on."""
    found = {"python": platform.python_version()}
    for name, distribution in _LIBRARIES.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
