"""Quality of pruned models on the validation split, beside the dense model's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pruning_core.data.rows import Rows
from pruning_core.evidence.calibration import TokenSet, batched, evaluation_tokens
from pruning_core.report.report import QualityReport
from pruning_core.spec.prune import PruneSpec, TaskSpec
from pruning_core.tasks.base import Observed, TaskModel


class Evaluator:
    """Evaluates the checkpoints of a run on the validation split. The dense model is run only once."""

    def __init__(self, spec: PruneSpec, dense: TaskModel, validation: Rows) -> None:
        """Tokenise the validation rows; the dense model runs at the first comparison."""
        self._task, self._dense = spec.task, dense
        self._rows = validation.take(range(len(validation))[: spec.evaluation.max_samples])
        self._encoded = dense.family.encode(dense, self._rows, dense.longest(spec.evaluation.max_length))
        self._tokens = batched(
            self._encoded, batch_tokens=evaluation_tokens(dense.device, dense.entries), keep=self._encoded.kept
        )
        self._dense_observed: list[Tensor] | None = None

    @property
    def steps(self) -> int:
        """Number of batches that the next comparison runs."""
        return len(self._tokens.batches) * (2 if self._dense_observed is None else 1)

    def compare(self, pruned: TaskModel, on_batch: Callable[[int], None]) -> QualityReport:
        """Evaluate a checkpoint by the task's metric, beside the dense model."""
        tokens, done = self._tokens, 0
        if self._dense_observed is None:
            self._dense_observed = observe(self._dense, tokens, self._task, on_batch)
            done = len(tokens.batches)
        observed = observe(pruned, tokens, self._task, lambda step: on_batch(done + step))
        return pruned.family.quality(self._task, Observed(self._dense_observed, observed, self._encoded, self._rows))


def observe(model: TaskModel, tokens: TokenSet, task: TaskSpec, on_batch: Callable[[int], None]) -> list[Tensor]:
    """Run a model over all batches, and return what its task keeps of each sample, in the samples' order, on the CPU."""
    found: dict[int, Tensor] = {}
    with torch.inference_mode():
        for done, batch in enumerate(tokens.batches, start=1):
            found |= zip(batch.rows.tolist(), model.family.observe(model, batch, task), strict=True)
            on_batch(done)
    return [found[row] for row in range(tokens.samples)]
