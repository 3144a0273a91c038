"""The options of healing, and the field of the spec that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, cast

import typer

Heal = Annotated[
    str | None,
    typer.Option(
        help="distil: after the repair, train towards the dense model's outputs; held-out samples decide what is kept."
    ),
]
HealMinutes = Annotated[
    float | None, typer.Option(help="Minutes of healing for each target (default 10); implies --heal distil.")
]


class Chosen(Protocol):
    """The options of healing among those of a job."""

    @property
    def heal(self) -> str | None:
        """The kind."""
        ...

    @property
    def heal_minutes(self) -> float | None:
        """The budget."""
        ...


def healed(chosen: Chosen, recovery: object) -> dict[str, Any]:
    """Return the field ``recovery`` with what was chosen; nothing where nothing was.

    Args:
        chosen: The options.
        recovery: The spec file's field; its settings of healing stay, but for what the options say.
    """
    if chosen.heal is None and chosen.heal_minutes is None:
        return {}
    whole = cast("Mapping[str, Any]", recovery) if isinstance(recovery, Mapping) else {}
    stated = whole.get("heal") or {}
    kept: dict[str, Any] = {"kind": stated} if isinstance(stated, str) else dict(cast("Mapping[str, Any]", stated))
    kind = chosen.heal or ("distil" if kept.get("kind", "none") == "none" else kept["kind"])
    minutes = {} if chosen.heal_minutes is None else {"minutes": chosen.heal_minutes}
    return {"recovery": {**whole, "heal": {**({} if kind == "none" else kept), **minutes, "kind": kind}}}
