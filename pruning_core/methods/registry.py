"""Which class answers for which method of a spec."""

from __future__ import annotations

from pruning_core.methods.base import Method
from pruning_core.methods.baselines.options import Magnitude
from pruning_core.methods.baselines.scores import MagnitudeMethod, RandomMethod
from pruning_core.methods.fisher_cg.options import FisherCG
from pruning_core.methods.fisher_cg.scores import FisherCGMethod
from pruning_core.spec.method import UnitMethod


def method_for(spec: UnitMethod) -> Method:
    """Build the method that a spec names, of those that remove units."""
    if isinstance(spec, FisherCG):
        return FisherCGMethod(spec)
    if isinstance(spec, Magnitude):
        return MagnitudeMethod()
    return RandomMethod()
