"""References to models and data sets: a path, or a Hub id with or without a revision. Torch-free."""

from __future__ import annotations


def is_local(reference: str) -> bool:
    """Return whether a reference is a path (``/``, ``./``, ``../`` or ``~`` at its start) and not a Hub id."""
    return reference.startswith(("/", "./", "../", "~"))


def split_revision(reference: str) -> tuple[str, str | None]:
    """Split ``org/name@revision`` into the Hub id and the branch, tag or commit. A path keeps its ``@``.

    Returns:
        The id and the revision; None where none is named.

    Raises:
        ValueError: Nothing stands before or after the ``@``.
    """
    if is_local(reference) or "@" not in reference:
        return reference, None
    name, _, revision = reference.partition("@")
    if not name or not revision:
        raise ValueError("a Hub id with a revision has the form org/name@revision")
    return name, revision


def joined_revision(reference: str, revision: str | None) -> tuple[str, str | None]:
    """Return the Hub id and the one revision that a reference and a field of its own name.

    Raises:
        ValueError: They name two.
    """
    name, named = split_revision(reference)
    if named is not None and revision is not None and named != revision:
        raise ValueError(f"the revision is named twice: {named} after the @, and {revision}; name it once")
    return name, named or revision
