"""What memory a device has left for this process, and whether a model's weights fit into it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pruning_core.errors import OutOfMemory
from pruning_core.files.checkpoint import CheckpointFacts
from pruning_core.report.report import MemoryReport
from pruning_core.spec.memory import needs_all_weights
from pruning_core.spec.prune import PruneSpec

# The dense model, its pruned copy, and that one loaded back from its files, all in float32 at the worst.
_COPIES = 3
# The least of them without which nothing can be done.
_LEAST_COPIES = 2
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class _Limit:
    """A file that holds a limit, the one that says what is used of it, and the one that says what of that is only cached."""

    limit: str
    used: str
    cached: tuple[str, ...]


_V1 = _Limit("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Limit("memory.max", "memory.current", ("inactive_file", "active_file"))


def place_weights(spec: PruneSpec, facts: CheckpointFacts, device: torch.device) -> MemoryReport:
    """Decide whether all weights are in memory, or those of one block at a time.

    Args:
        spec: What it says goes; auto is decided here.
        facts: The model's headers.
        device: Where it runs.

    Raises:
        OutOfMemory: They do not fit, and what is asked for needs all of them.
    """
    needed = _COPIES * 4 * facts.parameters + spec.calibration.memory_mb * 2**20
    free = free_memory(device)
    chosen = spec.memory.weights
    weights: Literal["resident", "paged"] = "resident" if chosen == "auto" else chosen
    if chosen == "auto" and needed > free:
        reason = needs_all_weights([target.metric for target in spec.all_targets], getattr(spec.method, "tier", "one-shot"))
        weights = "paged" if reason is None else "resident"
        if reason is not None and _LEAST_COPIES * 4 * facts.parameters > free:
            raise OutOfMemory(
                f"the model's weights need {_gigabytes(needed)} and {device} has {_gigabytes(free)} left; they cannot be read "
                f"one block at a time, since {reason}; take another target or tier, or a device with more memory",
                param="memory.weights",
            )
    return MemoryReport(weights=weights, needed_bytes=needed, free_bytes=free)


def free_memory(device: torch.device) -> int:
    """Give the bytes that the process may still take: of the GPU, or of the machine, its control groups and its limits."""
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
    """Give what each control group that the process is in has left; what is cached of files is given back when it is needed."""
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
    """Read lines of a name and a number, in bytes or in the kernel's kilobytes."""
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
