"""Plans that remove units: masks, by which a student is cut and repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pruning_core.arch.adapter import ModelAdapter, adapt
from pruning_core.arch.masks import Mask
from pruning_core.evidence.context import Evidence
from pruning_core.methods.base import Applied, Written
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.report.report import Outcome, SublayerReport
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.prune import RecoverySpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class UnitPlan:
    """A plan that cuts all units but those of a mask out of the model, and repairs the rest.

    Attributes:
        mask: The units that stay.
        zeroes_weights: False: matrices change their shapes instead.
        training: None: no training follows.
    """

    mask: Mask
    zeroes_weights: bool = False
    training: None = None

    def apply_(
        self, student: PreTrainedModel, evidence: Evidence, recovery: RecoverySpec, *, on_sublayer: Callable[[int], None]
    ) -> Applied:
        """Cut and repair the student, sublayer after sublayer."""
        sublayers = prune_and_recover_(adapt(student), self.mask, evidence, recovery, on_sublayer=on_sublayer)
        return Applied(self.mask, left_whole(sublayers, self.mask, evidence.dense))

    def finish_(self, student: PreTrainedModel, applied: Applied, layout: Layout) -> Applied:
        """Return ``applied``: nothing is left to do."""
        del student, layout
        return applied

    def recount(self, written: Written) -> None:
        """Return None: no weights are set to zero."""
        del written

    def zero_blocks(self, names: Sequence[str]) -> Mapping[str, None]:
        """Return None for every matrix."""
        return dict.fromkeys(names)

    def hints(self, outcome: Outcome) -> list[str]:
        """Say which layers have no attention: the table of heads does not say what it means for the key-value cache."""
        absent = [own.layer + 1 for own in outcome.layers if own.lost_attention]
        if not absent:
            return []
        left = sum(own.kept_heads > 0 for own in outcome.layers)
        listed, many = ", ".join(map(str, absent)), len(absent) > 1
        said = f"layers {listed} have no attention" if many else f"layer {listed} has no attention"
        return [f"{said}: {left} of {len(outcome.layers)} layers keep keys and values"]


def left_whole(reports: Sequence[SublayerReport], mask: Mask, dense: ModelAdapter) -> tuple[SublayerReport, ...]:
    """Report as skipped what lost no unit, and whose refit to the losses of earlier sublayers was rejected.

    Such a refit is a try: without it the sublayer is as good as in the dense model, and nobody is to be warned. The last
    sublayer before a block or an attention that is gone stands in for it, and its rejection is one.
    """
    counts = mask.counts()
    followed_by_a_gap = [
        index + 1 < len(counts) and not counts[index + 1] and dense.sublayers[index + 1].signature.kind == "head"
        for index in range(len(counts))
    ]
    return tuple(
        report.but(status="skipped") if report.status == "rejected" and bool(kept.all()) and not gap else report
        for report, kept, gap in zip(reports, mask.kept, followed_by_a_gap, strict=True)
    )
