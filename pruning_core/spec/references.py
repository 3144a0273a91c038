"""References to models and data sets: paths of folders, and ids of the Hub with their revisions. Torch-free."""

from __future__ import annotations


def is_local(reference: str) -> bool:
    """Return whether a reference is a path (``/``, ``./``, ``../`` or ``~`` at its start) and not a Hub id."""
    return reference.startswith(("/", "./", "../", "~"))


def split_revision(reference: str) -> tuple[str, str | None]:
    """Split ``org/name@revision`` into the id and the revision. Paths may have any sign in them, and have no revision.

    Args:
        reference: A path or a Hub id.

    Returns:
        The reference without its revision, and the revision; None where it names none.

    Raises:
        ValueError: The id or the revision is empty.
    """
    if is_local(reference):
        return reference, None
    name, at, revision = reference.partition("@")
    if at and not (name and revision):
        raise ValueError("name the revision behind the id, org/name@revision, where it is a branch, a tag or a commit")
    return name, revision or None
