"""The nearest known address to one where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_core.spec.nearest import nearest

_ROOT = "/v1"
_LONGEST = 200


def nearest_address(path: str, known: Sequence[str]) -> str | None:
    """Return the known address that a path was probably meant to be, with the names of its parts in braces; None if none is.

    Args:
        path: The path as it was asked for.
        known: The known addresses, such as ``/v1/jobs/{job_id}``.
    """
    if len(path) > _LONGEST:
        return None
    asked = path.rstrip("/")
    tried = [asked, _ROOT + asked, asked.removeprefix(_ROOT)]  # people leave the version out, or their client has it twice
    for one in tried:
        if (found := next((template for template in known if _filled(template, one) == one), None)) is not None:
            return found
    filled = {_filled(template, one): template for one in tried[:2] for template in known}
    like = nearest(asked, filter(None, filled))
    return None if like is None else filled[like]


def _filled(template: str, path: str) -> str:
    """Return the template with what a path has in the places of its names; empty where the path has other places."""
    names, parts = template.split("/"), path.split("/")
    if len(names) != len(parts):
        return ""
    return "/".join(part if name.startswith("{") else name for name, part in zip(names, parts, strict=True))
