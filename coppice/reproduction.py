"""Two bundles of one request, compared: their weight files by hash, and where these differ, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pruning_core.report.report import Report

if TYPE_CHECKING:
    from torch import Tensor

# Forms of weights: checkpoints, GGUF, ONNX with its data beside it, OpenVINO.
_WEIGHTS = (".safetensors", ".gguf", ".onnx", ".onnx_data", ".onnx.data", ".bin")
# What tells of the run, with its times; and what is added after the manifest.
_OF_THE_RUN = ("report.json", "report.html", "README.md", "provenance.json", "model.sig", "manifest.json")
# Evaluations that change no weight, and may name files or columns that only the first machine has.
_BESIDE_THE_WEIGHTS = ("also", "ledger", "slices")

Change = Literal["values", "shape", "type", "missing", "new"]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor that is not the same in both.

    Attributes:
        change: What is different; missing: the bundle has it, and what was made now has not.
        values: Number of its values in the bundle, or in what was made now where the bundle has none.
        differing: Number of values that differ; None where they cannot be compared.
        largest: Largest absolute difference of two values; None where they cannot be compared.
    """

    name: str
    change: Change
    values: int
    differing: int | None = None
    largest: float | None = None


@dataclass(frozen=True, slots=True)
class FileComparison:
    """A weight file of the bundle and of what was made now.

    Attributes:
        sha256: That of the bundle's; None where the bundle has no such file.
        again: That of the file made now; None where none was made.
        tensors: The tensors that differ; empty where the file is the same, or is none of safetensors.
        of: Number of tensors in both files together; 0 where they were not compared.
    """

    path: str
    sha256: str | None
    again: str | None
    tensors: tuple[TensorDifference, ...] = ()
    of: int = 0

    @property
    def identical(self) -> bool:
        """Whether it is the same file to the last bit."""
        return self.sha256 == self.again

    @property
    def largest(self) -> float | None:
        """The largest difference of two values in it."""
        return max((own.largest for own in self.tensors if own.largest is not None), default=None)


@dataclass(frozen=True, slots=True)
class Circumstance:
    """Something about machine, versions or threads that was otherwise."""

    name: str
    then: str
    now: str


def spec_without_further_evaluations(spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a spec without the evaluations that change no weight, and their names."""
    evaluation = dict(cast("Mapping[str, Any]", spec.get("evaluation") or {}))
    left_out = [name for name in _BESIDE_THE_WEIGHTS if evaluation.pop(name, None)]
    return {**spec, "evaluation": evaluation}, left_out


def digests_in(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a bundle, as its manifest has them."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}


def is_weights(path: str) -> bool:
    """Return whether a file of a bundle holds weights."""
    return path.endswith(_WEIGHTS)


def other_differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List the files that hold no weights and differ, without those that tell of the run."""
    names = sorted(then.keys() | now.keys())
    return [
        name
        for name in names
        if not is_weights(name) and name.rpartition("/")[2] not in _OF_THE_RUN and then.get(name) != now.get(name)
    ]


def compared(
    bundle: Path, made: Path, then: Mapping[str, str], now: Mapping[str, str], show: Callable[[str, float], None]
) -> list[FileComparison]:
    """Compare the weight files of two bundles.

    Args:
        bundle: Folder of the first, whose files are as its manifest says.
        made: Folder of the other.
        then: The sha256 of each file of the first.
        now: The sha256 of each file of the other.
        show: Called with what is done, and how far it is.
    """
    names = sorted(filter(is_weights, then.keys() | now.keys()))
    found: list[FileComparison] = []
    for at, name in enumerate(names):
        show("compare", at / len(names))
        one = FileComparison(name, then.get(name), now.get(name))
        if one.sha256 and one.again and not one.identical and name.endswith(".safetensors"):
            tensors, of = _tensors(bundle / name, made / name)
            one = FileComparison(name, one.sha256, one.again, tensors, of)
        found.append(one)
    return found


def circumstances(then: Report, now: Report) -> list[Circumstance]:
    """List what of machine, versions and threads differs between two runs. Both reports say how they were made."""
    assert then.reproduction is not None, "it is compared only where it is there"
    assert now.reproduction is not None, "this version writes it"
    machines = [dict(report.reproduction.machine) | {"device": report.device} for report in (then, now) if report.reproduction]
    places = (machines, [then.versions, now.versions])
    return [
        Circumstance(name, _said(before.get(name)), _said(after.get(name)))
        for before, after in places
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _said(value: object) -> str:
    return "none" if value is None else str(value)


def _tensors(first: Path, second: Path) -> tuple[tuple[TensorDifference, ...], int]:
    """Compare the tensors of two files, one pair in memory at a time."""
    from safetensors import safe_open

    with safe_open(first, "pt") as then, safe_open(second, "pt") as now:
        old, new = set(then.keys()), set(now.keys())
        found = [_one_sided(name, "missing", then.get_tensor(name)) for name in sorted(old - new)]
        found += [_one_sided(name, "new", now.get_tensor(name)) for name in sorted(new - old)]
        for name in sorted(old & new):
            found.extend(_pair(name, then.get_tensor(name), now.get_tensor(name)))
        return tuple(found), len(old | new)


def _one_sided(name: str, change: Change, tensor: Tensor) -> TensorDifference:
    return TensorDifference(name, change, tensor.numel())


def _pair(name: str, one: Tensor, other: Tensor) -> Iterator[TensorDifference]:
    import torch

    if one.shape != other.shape or one.dtype != other.dtype:
        yield TensorDifference(name, "shape" if one.shape != other.shape else "type", one.numel())
        return
    # By their bytes, so that NaN is the same as itself, and -0 is not 0.
    flat = [tensor.contiguous().view(-1).view(torch.uint8).view(-1, tensor.element_size()) for tensor in (one, other)]
    differing = (flat[0] != flat[1]).any(dim=1)
    count = int(differing.sum())
    if count:
        apart = (one.reshape(-1)[differing].double() - other.reshape(-1)[differing].double()).abs().max()
        yield TensorDifference(name, "values", one.numel(), count, float(apart) if bool(apart.isfinite()) else None)
