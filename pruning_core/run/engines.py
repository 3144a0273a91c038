"""The stage of a run in which the engines that were asked for load its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_core.artifacts.engines.prover import Checkpoint, EngineProver
from pruning_core.evidence.clock import StageClock
from pruning_core.report.report import Outcome
from pruning_core.run.candidate import Candidate


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
