"""Placement of a model's weights: the free memory of a device, and whether all weights fit into it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pruning_core.arch.structure import PASSED, number
from pruning_core.errors import OutOfMemory
from pruning_core.files.checkpoint import CheckpointFacts
from pruning_core.report.report import MemoryReport
from pruning_core.spec.prune import PruneSpec

# The dense model, its pruned copy, and the copy loaded back from its files; all in float32 in the worst case.
_COPIES = 3
# Copies without which no job can run.
_LEAST_COPIES = 2
# With healing: the dense model, the student, its gradients, AdamW's two moments, and the best weights so far.
_LEAST_COPIES_TO_HEAL = 6
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class _Limit:
    """Where a control group states its memory.

    Attributes:
        limit: Name of the file with the limit.
        used: Name of the file with the memory in use.
        cached: Lines of ``memory.stat`` that count the part of it that only caches files.
    """

    limit: str
    used: str
    cached: tuple[str, ...]


_V1 = _Limit("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Limit("memory.max", "memory.current", ("inactive_file", "active_file"))


def place_weights(spec: PruneSpec, facts: CheckpointFacts, device: torch.device) -> MemoryReport:
    """Decide whether all weights are in memory, or only those of one block at a time.

    Args:
        spec: The request. It may fix the placement; ``auto`` is decided here.
        facts: Facts from the checkpoint's headers.
        device: Device on which the model runs.

    Raises:
        OutOfMemory: The weights do not fit, and the request needs all of them at once.
    """
    least = _LEAST_COPIES_TO_HEAL if spec.recovery.heal.heals else _LEAST_COPIES
    needed = max(_COPIES, least) * 4 * facts.parameters + spec.calibration.memory_mb * 2**20
    free = free_memory(device)
    chosen = spec.memory.weights
    weights: Literal["resident", "paged"] = "resident" if chosen == "auto" else chosen
    if chosen == "auto" and needed > free:
        reason = spec.needs_all_weights or _of_experts(facts)
        weights = "paged" if reason is None else "resident"
        if reason is not None and least * 4 * facts.parameters > free:
            needs, left = _gigabytes(needed), _gigabytes(free)
            raise OutOfMemory(
                f"the model's weights need {needs} and {device} has {left} left; they cannot be read one block at a time, "
                f"since {reason}; take another target or tier, leave healing out, or take a device with more memory",
                param="memory.weights",
            )
    return MemoryReport(weights=weights, needed_bytes=needed, free_bytes=free)


def _of_experts(facts: CheckpointFacts) -> str | None:
    """Return why a mixture of experts needs all weights at once; None for other models."""
    mixture = number(facts.config, PASSED) is not None
    return "the experts of a mixture are stored one by one and computed with as one" if mixture else None


def free_memory(device: torch.device) -> int:
    """Return the bytes that the process may still allocate: on the GPU, or within the machine, control groups and limits."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return max(0, min([2**62, *_machine(), *control_groups(), *_process()]))


def _machine() -> Iterator[int]:
    yield from _values(Path("/proc/meminfo"), ("MemAvailable:",))


def _process() -> Iterator[int]:
    for which, line in ((resource.RLIMIT_DATA, "VmData:"), (resource.RLIMIT_AS, "VmSize:")):
        limit = resource.getrlimit(which)[0]
        used = _values(Path("/proc/self/status"), (line,))
        if limit != resource.RLIM_INFINITY and used:
            yield limit - used[0]


def control_groups(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the bytes left in each control group of the process. Cached files count as free, since the kernel can drop them."""
    if not membership.is_file():
        return
    for line in membership.read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield from _left(root, path, _V2)
        elif "memory" in controllers.split(","):
            yield from _left(root / "memory", path, _V1)


def _left(root: Path, path: str, files: _Limit) -> Iterator[int]:
    own = root / path.lstrip("/")
    for folder in (own, *own.parents):
        limit, used = folder / files.limit, folder / files.used
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
            yield int(text) - int(used.read_text()) + sum(_values(folder / "memory.stat", files.cached))
        if folder == root:
            return


def _values(path: Path, names: tuple[str, ...]) -> list[int]:
    """Read the named lines of a file, each a name and a number in bytes or in kB, as bytes."""
    if not path.is_file():
        return []
    found: list[int] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in names:
            found.append(int(words[1]) * (1024 if words[-1] == "kB" else 1))
    return found


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
