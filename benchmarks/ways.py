"""Ways to choose what is removed, and what is done to the rest, that benchmarks compare: spec fields by name."""

from __future__ import annotations

from typing import Any

from pruning_core.spec.method import METHODS

_NOTHING = {"kind": "none"}

DEFAULT = "fisher-cg"
# The steps of its papers beside our defaults.
PAPER = "fisher-cg, paper"
# Baselines as they come, and with the repair that `fisher-cg` has by default: comparing methods needs the same repair.
WAYS: dict[str, dict[str, Any]] = {
    DEFAULT: {"method": "fisher-cg"},
    PAPER: {"method": {"name": "fisher-cg", "preset": "paper"}},
    "magnitude, same repair": {"method": "magnitude"},
    "magnitude, no repair": {"method": "magnitude", "recovery": _NOTHING},
    "random, same repair": {"method": "random"},
    "random, no repair": {"method": "random", "recovery": _NOTHING},
    "fisher-cg, no repair": {"method": "fisher-cg", "recovery": _NOTHING},
}


# What experts of a mixture are chosen by, each with the same repair and without.
WAYS_OF_EXPERTS: dict[str, dict[str, Any]] = {
    f"{method['name']}{f', {experts}' if (experts := method.get('experts')) else ''}{said}": {"method": method, **repair}
    for said, repair in (("", {}), (", no repair", {"recovery": _NOTHING}))
    for method in (
        *({"name": "fisher-cg", "experts": by} for by in ("fisher", "reap", "frequency")),
        {"name": "magnitude"},
        {"name": "random"},
    )
}


def paper_training(method: str) -> dict[str, Any]:
    """Return the options of the training that a method's paper has."""
    return METHODS[method].presets["paper"].within("method.training")
