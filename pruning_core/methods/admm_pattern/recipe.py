"""The trained tier of ``admm-pattern``: the constraints that follow each other."""

from __future__ import annotations

from dataclasses import dataclass

from pruning_core.patterns.project import Projection
from pruning_core.spec.training import PatternTraining
from pruning_core.training.admm_penalty import Admm
from pruning_core.training.constraint import Constraint, Weights
from pruning_core.training.masking import FixedSupport, SrSte
from pruning_core.training.phases import Part, phases_of


@dataclass(frozen=True, slots=True)
class PatternRecipe:
    """ADMM for its share of the steps, then a fixed support or SR-STE.

    Attributes:
        projection: The projection onto the pattern.
        options: Options of the trained tier.
        part: The phases to make: ADMM's, where a refit follows; those after it; or all.
    """

    projection: Projection
    options: PatternTraining
    part: Part = "all"

    def constraint(self, weights: Weights) -> Constraint:
        """Make the phases. Each of them projects the weights onto the pattern at its end."""
        options, projection = self.options, self.projection

        def admm() -> Constraint:
            return Admm(
                weights,
                projection,
                rho=(options.rho_first, options.rho_last),
                growth=options.rho_growth,
                penalty=options.penalty,
            )

        def finish() -> Constraint:
            if options.finish == "sr-ste":
                return SrSte(weights, projection, options.decay)
            return FixedSupport(weights, projection)

        return phases_of(self.part, options.admm, admm, finish)
