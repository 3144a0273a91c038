"""The trained tier of ``block-lasso``: the constraints that follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pruning_core.methods.block_lasso.penalty import GroupLasso, Groups
from pruning_core.methods.block_lasso.rising import RisingLasso
from pruning_core.spec.training import LassoTraining
from pruning_core.training.constraint import Constraint, Weights
from pruning_core.training.masking import FixedSupport
from pruning_core.training.phases import Part, phases_of


@dataclass(frozen=True, slots=True)
class LassoRecipe:
    """Group Lasso for its share of the steps, then fine-tuning on the support that it leaves.

    Attributes:
        groups: Groups of each prunable matrix, by module path.
        sparsity: Share of all prunable weights that are pruned.
        options: Options of the trained tier.
        part: The phases to make: the Lasso's, where a refit follows; those after it; or all.
    """

    groups: Mapping[str, Groups]
    sparsity: float
    options: LassoTraining
    part: Part = "all"

    def constraint(self, weights: Weights) -> Constraint:
        """Make the phases."""
        options = self.options

        def lasso() -> Constraint:
            penalty = RisingLasso if options.penalised == "near" else GroupLasso
            return penalty(weights, self.groups, sparsity=self.sparsity, options=options)

        def fixed() -> Constraint:
            return FixedSupport(weights)

        return phases_of(self.part, options.share, lasso, fixed)
