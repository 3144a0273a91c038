"""Exports: further forms of a written checkpoint, made of what was written and loaded back, for engines that need them.

A format is a function of this package and a row of `registry.EXPORTERS`. It writes into the checkpoint's folder, and returns a
row of the report for each file or folder: that it is there, or the reason why not. What does not work out is deleted by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pruning_core.artifacts.probes import ProbeInput
from pruning_core.report.engines import ExportReport
from pruning_core.spec.artifacts import ArtifactSpec
from pruning_core.spec.prune import LatencySpec
from pruning_core.tasks.base import TaskModel


@dataclass(frozen=True, slots=True)
class Exported:
    """A checkpoint to be exported.

    Attributes:
        folder: Its folder, with weights, config and tokenizer.
        pruned: The model as it was loaded back from there.
        dense: The dense model, of which ``source`` is the folder.
        options: Which formats, and which variants of them.
        probes: Held-out inputs on which the outputs of a form are compared with the checkpoint's.
        timing: Shape, threads and repeats of what is timed.
        engines: Folder of the environments of engines, one of which quantises and proves GGUF files; None: see
            `pruning_core.engines.registry.engines_folder`.
    """

    folder: Path
    pruned: TaskModel
    dense: TaskModel
    options: ArtifactSpec
    probes: tuple[ProbeInput, ...] = ()
    timing: LatencySpec = field(default_factory=LatencySpec)
    engines: Path | None = None


Exporter = Callable[[Exported], tuple[ExportReport, ...]]


def failed(form: str, kind: str, reason: str) -> ExportReport:
    """Return the row of a form that is not there."""
    return ExportReport(format=form, kind=kind, status="failed", reason=reason)
