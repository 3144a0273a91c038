"""Evaluation in the precision that a bundle is stored in, where it is faster and a check on two batches agrees with float32.

`TaskModel` computes in float32. A model that is stored in bfloat16 or float16 loses nothing when its weights are put back into
that type, and is then what ``from_pretrained`` makes of the files without a ``dtype``. Dense and pruned model always compute
alike, so that their differences are of the pruning.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning_core.arch.adapter import adapt
from pruning_core.errors import NotFinite
from pruning_core.evidence.calibration import TokenSet
from pruning_core.machine.precision import is_faster
from pruning_core.measure.quality import observe
from pruning_core.report.quality import PrecisionReport
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.language import LanguageModel

Faster = Callable[[torch.dtype, torch.device, int, int], bool]

# Two batches are run in both precisions, which is worth it where there are at least so many.
_LEAST_BATCHES = 8
# In bfloat16, 3 % of SmolLM2's likeliest tokens change, most of them near ties, and its loss a token by 0.0015 (1,016 tokens).
_LEAST_ALIKE = 0.95
_MOST_APART = 0.01


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a language model in another precision is from itself in float32, on the same samples.

    Attributes:
        tokens: Counted tokens.
        alike: Share of them whose likeliest token is the same.
        apart: Difference of the mean losses a token, in nats.
    """

    tokens: int
    alike: float
    apart: float

    @classmethod
    def of(cls, exact: Sequence[Tensor], other: Sequence[Tensor]) -> Agreement:
        """Compare what `LanguageModel.condense` keeps of each sample: its loss, then its likeliest tokens."""
        found, wanted = (torch.cat([own[1:] for own in outputs]) for outputs in (other, exact))
        lost = float(sum(own[0] for own in other) - sum(own[0] for own in exact))
        return cls(len(wanted), float((found == wanted).double().mean()), abs(lost) / len(wanted))

    @property
    def holds(self) -> bool:
        """Whether figures in the other precision stand for those in float32. NaN holds nothing."""
        return self.alike >= _LEAST_ALIKE and self.apart <= _MOST_APART

    @property
    def words(self) -> str:
        """The comparison in words."""
        return (
            f"on {self.tokens:,} tokens, {self.alike:.1%} of the likeliest tokens are those of float32, and the loss a "
            f"token is {self.apart:.4f} apart"
        )


class StoredPrecision:
    """Chooses the precision in which the checkpoints of a run are evaluated, each beside the dense model."""

    def __init__(self, spec: PruneSpec, dense: TaskModel, tokens: TokenSet, faster: Faster = is_faster) -> None:
        """Note what is compared; no model runs before the first checkpoint is there.

        Args:
            spec: The request.
            dense: The dense model.
            tokens: The samples that the task is judged on.
            faster: Tells whether a device is faster in a type than in float32, given the sizes of the widest matrix.
        """
        self._spec, self._dense, self._tokens, self._faster = spec, dense, tokens, faster
        self._of_dense: Agreement | str | None = None

    @contextmanager
    def evaluated(self, pruned: TaskModel) -> Generator[PrecisionReport | None]:
        """Let both models compute in the chosen precision while the context is open; float32 again afterwards.

        The context's value says which it is, and why; None where there is no choice: float32.
        """
        dtype = self._dtype(pruned)
        if dtype is None:
            yield None
            return
        chosen = self._checked(pruned, dtype)
        with ExitStack() as stack:
            if chosen.dtype != "float32":
                for model in (self._dense, pruned):
                    stack.enter_context(_computing_in(dtype, model))
            yield chosen

    @contextmanager
    def expected(self) -> Generator[None]:
        """Let the dense model alone compute in the precision that checkpoints stored as it is will be judged in."""
        dtype = self._dtype(self._dense)
        if dtype is None:
            yield
            return
        agreed = self._agreement_of_dense(dtype)
        is_taken = isinstance(agreed, Agreement) and agreed.holds
        with _computing_in(dtype, self._dense) if is_taken else nullcontext():
            yield

    def _dtype(self, pruned: TaskModel) -> torch.dtype | None:
        """Return the precision that both checkpoints are stored in, if it is another than float32 and may be used."""
        stored = self._dense.stored_dtype
        judged = isinstance(self._dense.family, LanguageModel)  # by the loss and the likeliest tokens, which can be compared
        if not judged or self._dense.pages is not None or self._spec.evaluation.precision == "float32":
            return None
        if not self._spec.all_targets:  # a floor alone decides which weights are delivered: not by what a clock says
            return None
        if stored != pruned.stored_dtype or stored not in ("bfloat16", "float16"):
            return None
        return getattr(torch, stored) if len(self._tokens.batches) >= _LEAST_BATCHES else None

    def _checked(self, pruned: TaskModel, dtype: torch.dtype) -> PrecisionReport:
        for name, found in (("dense", self._agreement_of_dense(dtype)), ("pruned", None)):
            agreed = found if found is not None else self._agreement(pruned, dtype)
            if isinstance(agreed, str):
                return PrecisionReport(dtype="float32", reason=agreed)
            if not agreed.holds:
                said = f"{self._dense.stored_dtype} changes the {name} model's answers too much: {agreed.words}"
                return PrecisionReport(dtype="float32", reason=said, disagrees=True)
        assert isinstance(agreed, Agreement), "sentences have returned"
        return PrecisionReport(dtype=self._dense.stored_dtype, reason=f"as the weights are stored: {agreed.words}")

    def _agreement_of_dense(self, dtype: torch.dtype) -> Agreement | str:
        """Compare the dense model in both precisions, once; or say why it should not compute in the other."""
        if self._of_dense is None:
            self._of_dense = self._reason_against(dtype) or self._agreement(self._dense, dtype)
        return self._of_dense

    def _reason_against(self, dtype: torch.dtype) -> str | None:
        """Say why the device should not compute in a type; None if it should."""
        widest = max(adapt(self._dense.model).groups, key=lambda group: group.size * group.unit_width)
        device = self._dense.device
        if self._faster(dtype, device, widest.hidden, widest.size * widest.unit_width):
            return None
        kind = "this processor" if device.type == "cpu" else "this device"
        return f"{kind} multiplies {self._dense.stored_dtype}, in which the weights are stored, no faster than float32"

    def _agreement(self, model: TaskModel, dtype: torch.dtype) -> Agreement | str:
        """Run a model in both precisions on two batches.

        Returns:
            The comparison, or a sentence on why there is none.
        """
        if not _is_exact(model, dtype):
            return f"not all weights are the same in {self._dense.stored_dtype}"
        some = _some(self._tokens)
        exact = observe(model, some, self._spec.task, lambda _step: None)
        try:
            with _computing_in(dtype, model):
                other = observe(model, some, self._spec.task, lambda _step: None)
        except (RuntimeError, NotFinite) as error:  # of types that don't fit each other, or of numbers that overflow
            said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            return f"the model does not run in {self._dense.stored_dtype} ({said})"
        return Agreement.of(exact, other)


@contextmanager
def _computing_in(dtype: torch.dtype, model: TaskModel) -> Generator[None]:
    """Put the weights into a type while the context is open. Buffers stay: transformers has tables of positions in float32."""
    weights = [own for own in model.model.parameters() if own.dtype == torch.float32]
    try:
        for own in weights:
            own.data = own.data.to(dtype)
        yield
    finally:
        for own in weights:
            own.data = own.data.to(torch.float32)


def _is_exact(model: TaskModel, dtype: torch.dtype) -> bool:
    """Return whether the weights come back from a type as they were."""
    return all(torch.equal(own.data.to(dtype).to(own.dtype), own.data) for own in model.model.parameters())


def _some(tokens: TokenSet) -> TokenSet:
    """Return the middle and the last batch, of typical and of the longest samples, which are numbered anew."""
    batches: list[Batch] = []
    start = 0
    for batch in (tokens.batches[len(tokens.batches) // 2], tokens.batches[-1]):
        count = len(batch.rows)
        batches.append(replace(batch, rows=torch.arange(start, start + count)))
        start += count
    return replace(tokens, batches=batches, samples=start)
