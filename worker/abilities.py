"""What this worker serves: the class of its devices, the memory of the smallest GPU, and its tags. Never imports torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pynvml
import structlog
from pydantic import ValidationError

from app.jobs.needs import CUDA, Abilities
from app.logs import first_line
from app.settings import Settings
from worker.probe import TorchProbe

_log = structlog.get_logger(__name__)

_PROBE_S = 180
_AMD = Path("/dev/kfd")


def abilities_of(settings: Settings, probe: Callable[[str], TorchProbe] | None = None) -> Abilities:
    """Say what a worker of these settings serves.

    Torch is asked, in a process of its own, where a GPU is named or there is one: it may have been built without.

    Args:
        settings: Devices and tags.
        probe: Asks torch for a device, "" for the one that it chooses.
    """
    devices, tags = settings.resolved_devices, tuple(sorted(settings.worker_tags))
    if devices[0].partition(":")[0] == "cpu" or (not devices[0] and not _has_gpu()):
        return Abilities(device="cpu", tags=tags)
    found = [(probe or ask_torch)(device) for device in devices]
    for device, answer in zip(devices, found, strict=True):
        if answer.error:
            _log.error("worker.device_unusable", device=device, reason=answer.error)
    kinds = {answer.device.partition(":")[0] for answer in found} - {""}
    if kinds != {CUDA}:
        return Abilities(device=devices[0].partition(":")[0] or "cpu", tags=tags)
    memory = [answer.memory_bytes for answer in found if answer.memory_bytes is not None]
    return Abilities(device=CUDA, gpu_bytes=min(memory, default=None), tags=tags)


def ask_torch(device: str) -> TorchProbe:
    """Ask torch for a device, in a process of its own."""
    command = [sys.executable, "-P", "-m", "worker.probe", *([device] if device else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=True)
        return TorchProbe.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, OSError, IndexError, ValidationError) as error:
        return TorchProbe(torch="", error=first_line(error))


def _has_gpu() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return _AMD.exists()
    try:
        return pynvml.nvmlDeviceGetCount() > 0
    finally:
        pynvml.nvmlShutdown()
