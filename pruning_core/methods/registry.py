"""Which class answers for which method of a spec."""

from __future__ import annotations

from pruning_core.methods.base import Method
from pruning_core.methods.baselines import MagnitudeMethod, RandomMethod
from pruning_core.methods.fisher_cg import FisherCGMethod
from pruning_core.spec import FisherCG, Magnitude
from pruning_core.spec import Method as MethodSpec


def method_for(spec: MethodSpec) -> Method:
    """Build the method that a spec names."""
    if isinstance(spec, FisherCG):
        return FisherCGMethod(spec)
    if isinstance(spec, Magnitude):
        return MagnitudeMethod()
    return RandomMethod()
