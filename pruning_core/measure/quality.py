"""Quality of pruned models on the validation split, compared with the dense model's."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pruning_core.data.digests import rows_digest
from pruning_core.data.rows import Rows
from pruning_core.errors import MetricUndefined, NotFinite
from pruning_core.evidence.calibration import TokenSet, batched, evaluation_tokens
from pruning_core.kept.piece import Json, packed, unpacked
from pruning_core.kept.statistics import Statistics
from pruning_core.machine.finite import require_finite
from pruning_core.measure.certainty import Comparison, check_certain, compared
from pruning_core.measure.where import where_lost
from pruning_core.report.report import QualityReport
from pruning_core.spec.metrics import METRICS
from pruning_core.spec.prune import PruneSpec, TaskSpec
from pruning_core.spec.tasks import finding_of
from pruning_core.tasks.base import Observed, TaskModel
from pruning_core.tasks.batch import Batch


class Evaluator:
    """Evaluates the checkpoints of a run on the validation split. The dense model is run only once in each precision."""

    def __init__(
        self,
        spec: PruneSpec,
        dense: TaskModel,
        validation: Rows,
        *,
        of: str = "the validation split",
        statistics: Statistics | None = None,
    ) -> None:
        """Encode the validation rows. The dense model does not run before the first comparison.

        Args:
            spec: The request.
            dense: The dense model.
            validation: The rows.
            of: What they are rows of, for messages.
            statistics: The dense model's answers in an earlier run are taken from here; None: nothing is kept.

        Raises:
            DatasetInvalid: They are too few for what the request wants to be sure of.
        """
        self._spec, self._task, self._dense, self._of = spec, spec.task, dense, of
        self._statistics = statistics or Statistics()
        self._rows = validation.take(range(len(validation))[: spec.evaluation.max_samples])
        self._encoded = dense.family.encode(dense, self._rows, dense.longest(spec.evaluation.max_length))
        self._tokens = batched(
            self._encoded, batch_tokens=evaluation_tokens(dense.device, dense.entries), keep=self._encoded.kept
        )
        self._dense_observed: dict[torch.dtype, list[Tensor]] = {}  # by the precision that the model computed in
        check_certain(spec, min(len(self._rows), self._tokens.samples))

    @property
    def rows(self) -> int:
        """Number of validation rows."""
        return len(self._rows)

    @property
    def tokens(self) -> TokenSet:
        """The samples, in batches."""
        return self._tokens

    @property
    def steps(self) -> int:
        """Number of batches that the next comparison runs."""
        return len(self._tokens.batches) * (1 if self._dense_observed else 2)

    def compare(self, pruned: TaskModel, on_batch: Callable[[int], None]) -> QualityReport:
        """Evaluate a checkpoint and the dense model by the task's metric: see `judge`."""
        return self.judge(pruned, on_batch).quality

    def judge(self, pruned: TaskModel, on_batch: Callable[[int], None], *, where: bool = True) -> Comparison:
        """Evaluate a checkpoint and the dense model by the task's metric, and say how sure the difference is.

        Args:
            pruned: The checkpoint.
            on_batch: Called after each batch with the number of finished batches.
            where: Whether to say where quality was lost, too.

        Raises:
            NotFinite: Outputs or the metric are NaN or infinite.
            MetricUndefined: The metric is no number for the dense model.
        """
        tokens, done, dtype = self._tokens, 0, self._dense.model.dtype
        if dtype not in self._dense_observed:
            self.ask_dense(on_batch)
            done = len(tokens.batches)
        observed = observe(pruned, tokens, self._task, lambda step: on_batch(done + step), name="pruned", of=self._of)
        seen = Observed(self._dense_observed[dtype], observed, self._encoded, self._rows)
        judged = pruned.family.judge(seen, finding_of(self._task.type, self._task.metric))
        try:
            quality = pruned.family.scored(self._task, judged)
        except ValidationError as error:  # a report accepts only finite numbers
            wrong = [".".join(map(str, item["loc"])) for item in error.errors() if item["type"] == "finite_number"]
            if not wrong:
                raise
            if wrong == ["dense"] and METRICS[self._task.metric].undefined is not None:
                raise MetricUndefined(
                    f"{self._task.metric} of the dense model on {len(observed)} samples of {self._of} is undefined: "
                    "its scores are all alike, or there are too few rows; give more rows, or a model trained for the task",
                    param="task.metric",
                ) from error
            raise NotFinite(
                f"{self._task.metric} on {len(observed)} samples of {self._of} is no number ({', '.join(wrong)}): "
                "outputs that are all the same have no correlation; keep more of the model, or take another metric"
            ) from error
        found = compared(self._spec, judged, quality)
        return replace(found, where=where_lost(self._spec, judged, seen)) if where else found

    def ask_dense(self, on_batch: Callable[[int], None]) -> None:
        """Let the dense model answer in the precision that it computes in now, unless it has."""
        dtype = self._dense.model.dtype
        if dtype not in self._dense_observed:
            self._dense_observed[dtype] = self._answers_of_dense(on_batch)

    def _answers_of_dense(self, on_batch: Callable[[int], None]) -> list[Tensor]:
        def answers() -> list[Tensor]:
            return observe(self._dense, self._tokens, self._task, on_batch, name="dense", of=self._of)

        return self._statistics.found("answers", self._key, answers, pack=packed, unpack=unpacked)

    def _key(self) -> dict[str, Json]:
        """What the dense model's answers depend on beside what all statistics of the run do."""
        return {
            "rows": rows_digest(self._rows),
            "samples": self._tokens.fingerprint,
            "batches": len(self._tokens.batches),
            "asked": [self._task.type, self._task.metric, self._task.prefix],
            "dtype": str(self._dense.model.dtype),
        }


def observe(
    model: TaskModel,
    tokens: TokenSet,
    task: TaskSpec,
    on_batch: Callable[[int], None],
    *,
    name: str = "checked",
    of: str = "the validation split",
) -> list[Tensor]:
    """Run a model over all batches, and keep the values that the metric needs of each sample.

    Args:
        model: The dense or a pruned model.
        tokens: The samples.
        task: The task, with its metric.
        on_batch: Called after each batch with the number of finished batches.
        name: Name of the model in errors.
        of: What the samples are of, in errors.

    Returns:
        The values of each sample, in the samples' own order, on the CPU.

    Raises:
        NotFinite: An output at a real token is NaN or infinite. The class chosen from such logits would hide it.
    """
    found: dict[int, Tensor] = {}
    with torch.inference_mode():
        for done, batch in enumerate(tokens.batches, start=1):
            with _finite_outputs(model, batch, f"on batch {done} of {of}, {{}} of the {name} model"):
                found |= zip(batch.rows.tolist(), model.family.observe(model, batch, task), strict=True)
            on_batch(done)
    return [found[row] for row in range(tokens.samples)]


@contextmanager
def _finite_outputs(model: TaskModel, batch: Batch, what: str) -> Generator[None]:
    """Check inside the context that the model's outputs at real tokens are finite.

    Raises:
        NotFinite: An output at a real token is NaN or infinite.
    """
    real = batch.written

    def check(_module: nn.Module, _args: object, output: object) -> None:
        for name in model.family.reads:
            values = getattr(output, name, None)
            if not isinstance(values, Tensor):
                continue
            if model.entries > 1:  # minus infinity rules out entries of a vocabulary, but the largest logit is finite
                values = values.amax(-1)
            where = real.to(values.device)
            require_finite(values[where] if values.shape[:2] == where.shape else values, what.format(name))

    handle = model.model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()
