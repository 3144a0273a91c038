"""A decoder with its calibration samples: those that a job of the core draws for the same request, to the token."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pruning_core.data.read import read_rows
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Evidence
from pruning_core.evidence.gathering import gather_evidence
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel


@dataclass(frozen=True, slots=True)
class Case:
    """What a peer is given.

    Attributes:
        spec: The request of a `fisher-cg` job for the model, whose calibration and recovery the peers share.
        dense: The model.
        evidence: Its calibration samples.
        kept: Statistics of the dense model that serve several shares, by name, with the seconds they took.
    """

    spec: PruneSpec
    dense: TaskModel
    evidence: Evidence
    kept: dict[str, tuple[Any, float]] = field(default_factory=dict[str, "tuple[Any, float]"])

    @classmethod
    def of(cls, fields: dict[str, Any], scratch: Path) -> Case:
        """Load the model and draw the samples.

        Args:
            fields: Fields of a spec: model, task, data, seed, calibration; without a target.
            scratch: Folder for streams that memory has no room for.
        """
        spec = PruneSpec.model_validate({**fields, "target": {"metric": "macs", "keep": 0.8}})
        dense = load_task_model(Path(spec.model), spec.task.type, torch.device("cpu"))
        train = dense.family.prepared(dense, read_rows(spec.task, "train"))
        return cls(spec, dense, gather_evidence(spec, dense, train, scratch, StageClock(lambda _progress: None)))

    def once(self, name: str, make: Callable[[], Any]) -> tuple[Any, float]:
        """Return what a function makes, and its seconds; it is called once for a name."""
        if name not in self.kept:
            began = time.perf_counter()
            made = make()
            self.kept[name] = made, time.perf_counter() - began
        return self.kept[name]
