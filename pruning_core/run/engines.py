"""The stage of a run in which the engines that were asked for load its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pruning_core.artifacts.acceptance import Prover
from pruning_core.artifacts.engines.prover import Checkpoint, EngineProver
from pruning_core.data.rows import Rows
from pruning_core.engines.refusing import reason_by_model
from pruning_core.engines.registry import ENGINES
from pruning_core.evidence.clock import StageClock
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.report.report import Outcome
from pruning_core.run.candidate import Candidate
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel


def engine_prover(proven: Prover, spec: PruneSpec, held_out: Rows, folder: Path | None) -> EngineProver:
    """Make the prover of engines of a run.

    Args:
        proven: The prover of its checkpoints.
        spec: The request.
        held_out: Rows whose texts are scored.
        folder: The folder of engines' environments.
    """
    return EngineProver(
        spec,
        proven.dense,
        held_out,
        proven.probes,
        trust_remote_code=proven.trust_remote_code,
        limit_s=proven.limit_s,
        folder=folder,
        refuses=refusing(spec, proven.dense),
    )


def refusing(spec: PruneSpec, dense: TaskModel) -> Callable[[str], str | None]:
    """Return what says why an engine can't hold the bundles of a run, as a sentence; None where it can."""
    config = read_checkpoint(dense.source).config
    return lambda name: reason_by_model(ENGINES[name], spec, config)


def run_in_engines(
    prover: EngineProver, candidates: Sequence[Candidate], outcomes: Sequence[Outcome], clock: StageClock
) -> list[Outcome]:
    """Prove every checkpoint in every engine, and return the outcomes with a row each."""
    found: list[Outcome] = []
    each = len(prover.engines)
    with clock.stage("engines", each * len(candidates)) as step:
        for done, (candidate, outcome) in enumerate(zip(candidates, outcomes, strict=True)):
            onnx = outcome.onnx
            checkpoint = Checkpoint(
                folder=candidate.expected.folder,
                exports=outcome.exports,
                onnx=None if onnx is None or onnx.status == "failed" else onnx.path,
                onnx_problem=None if onnx is None else onnx.reason,
            )
            rows = prover.prove(checkpoint, lambda count, done=done: step(done * each + count))
            found.append(outcome.but(engines=rows))
    return found
