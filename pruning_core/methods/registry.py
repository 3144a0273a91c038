"""Which class answers for which method of a spec."""

from __future__ import annotations

from pruning_core.method_spec import FisherCG, Magnitude, UnitMethod
from pruning_core.methods.base import Method
from pruning_core.methods.baselines import MagnitudeMethod, RandomMethod
from pruning_core.methods.fisher_cg import FisherCGMethod


def method_for(spec: UnitMethod) -> Method:
    """Build the method that a spec names, of those that remove units."""
    if isinstance(spec, FisherCG):
        return FisherCGMethod(spec)
    if isinstance(spec, Magnitude):
        return MagnitudeMethod()
    return RandomMethod()
