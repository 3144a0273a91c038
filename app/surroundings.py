"""What a process finds around it at its start: variables and folders that would have no effect, and nobody would be told."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from app.settings import PREFIX, Settings
from pruning_core.spec.nearest import nearest

_NO_SETTINGS = frozenset({"COPPICE_API_KEY", "COPPICE_URL", "COPPICE_DEBUG"})  # the command line's own


def misspelt_settings(environment: Iterable[str]) -> list[str]:
    """Return a sentence for each variable of an environment that is nearly a setting: it would be ignored, and nobody told."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = (name for name in sorted(environment) if name.startswith(PREFIX) and name not in known | _NO_SETTINGS)
    pairs = ((name, nearest(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known])) for name in given)
    return [f"{name} is no setting and is ignored; did you mean {PREFIX}{like}?" for name, like in pairs if like is not None]


def unusable_roots(settings: Settings) -> list[str]:
    """Return a sentence for each allowed root that no job can use as it is."""
    return [f"{root} {reason}" for root in settings.allowed_roots if (reason := _why_unusable(root)) is not None]


def _why_unusable(root: Path) -> str | None:
    if not root.is_absolute():
        return (
            f"is relative; it counts from the folder that each process is started in. Give it whole, such as {root.absolute()}"
        )
    try:
        if not root.exists():
            return "does not exist; make the folder, or correct the name"
        if not root.is_dir():
            return "is a file; name a folder"
    except OSError as error:
        return f"cannot be looked at ({(error.strerror or '').lower()})"
    return None if os.access(root, os.R_OK | os.X_OK) else "cannot be read by this user"
