"""Plans that remove units: masks, by which a student is cut and repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter, adapt
from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import WIDEST_REPAIR, UnitGroup
from pruning_core.evidence.context import Evidence
from pruning_core.methods.base import Applied, Written
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.report.report import Outcome, SublayerReport
from pruning_core.shapes import Float
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.prune import RecoverySpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SHOWN = 8


@dataclass(frozen=True)
class UnitPlan:
    """A plan that cuts all units but those of a mask out of the model, and repairs the rest.

    Attributes:
        mask: The units that stay.
        zeroes_weights: False: matrices change their shapes instead.
        training: None: no training follows.
        notes: What the scores say that the report should say, too.
    """

    mask: Mask
    zeroes_weights: bool = False
    training: None = None
    notes: tuple[str, ...] = ()

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
        """Say what the tables of units do not: which layers have no attention, and what their experts load by."""
        found = [*self.notes, *_of_experts(outcome)]
        absent = [own.layer + 1 for own in outcome.layers if own.lost_attention]
        if not absent:
            return found
        left = sum(own.kept_heads > 0 for own in outcome.layers)
        listed, many = ", ".join(map(str, absent)), len(absent) > 1
        said = f"layers {listed} have no attention" if many else f"layer {listed} has no attention"
        return [*found, f"{said}: {left} of {len(outcome.layers)} layers keep keys and values"]


def unreached(importance: Sequence[Float[Tensor, " units"]], groups: Sequence[UnitGroup]) -> tuple[str, ...]:
    """Say which experts no calibration token passes through: nothing is known of them, and they go first."""
    found: list[str] = []
    for scores, group in zip(importance, groups, strict=True):
        numbers = (scores == 0).nonzero().flatten().tolist() if group.kind == "expert" else []
        if numbers:
            shown = ", ".join(str(number) for number in numbers[:_SHOWN]) + (", ..." if numbers[_SHOWN:] else "")
            found.append(
                f"layer {group.layer + 1}: no calibration token passes through {len(numbers)} of {group.size} experts "
                f"({shown}, counted from 0); they score 0 and go first, whatever other texts need of them: more samples may "
                "reach them"
            )
    return tuple(found)


def _of_experts(outcome: Outcome) -> list[str]:
    """Say by what experts load, and where they were not repaired."""
    kept = [own.experts.kept for own in outcome.layers if own.experts is not None]
    found: list[str] = []
    if outcome.layout != "stock" and len(set(kept)) > 1:
        found.append(
            f"layers keep {min(kept)} to {max(kept)} experts: the bundle loads by Coppice's loader alone; layout stock keeps "
            "the same number in each layer, which stock transformers and engines load"
        )
    wide = [own for own in outcome.layers if own.experts is not None and own.kept_neurons > WIDEST_REPAIR]
    if wide and any(own.attention.solver != "none" for own in wide):
        found.append(
            f"the experts of {len(wide)} layers were not repaired: together they have more than {WIDEST_REPAIR} neurons, too "
            "many for least squares over all at once"
        )
    return found


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
