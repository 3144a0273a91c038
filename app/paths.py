"""Paths of addresses and of documents, part by part."""

from __future__ import annotations


def is_under(path: str, *roots: str) -> bool:
    """Return whether a path is one of the roots or lies below one: ``/jobs/1`` is under ``/jobs``, ``/jobsite`` is not."""
    return any(path == root or path.startswith(f"{root}/") for root in roots)
