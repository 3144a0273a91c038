"""Ways to choose what is removed, and what is done to the rest, that benchmarks compare: spec fields by name."""

from __future__ import annotations

from typing import Any

_NOTHING = {"kind": "none"}

DEFAULT = "fisher-cg"
# Baselines as they come, and with the repair that `fisher-cg` has by default: comparing methods needs the same repair.
WAYS: dict[str, dict[str, Any]] = {
    DEFAULT: {"method": "fisher-cg"},
    "magnitude, same repair": {"method": "magnitude"},
    "magnitude, no repair": {"method": "magnitude", "recovery": _NOTHING},
    "random, same repair": {"method": "random"},
    "random, no repair": {"method": "random", "recovery": _NOTHING},
    "fisher-cg, no repair": {"method": "fisher-cg", "recovery": _NOTHING},
}
