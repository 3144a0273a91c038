"""What the groups of settings have in common: types, and how a variable that lists several things is read."""

from __future__ import annotations

import ipaddress
import os

from pydantic import SecretStr

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SHORTEST_SECRET = 32


def split_paths(value: object) -> object:
    """Split a variable that lists paths, as the system's own lists of paths are split."""
    return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


def split_list(value: object) -> object:
    """Split a variable at its commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def long_enough(*secrets: SecretStr) -> None:
    """Raise ValueError for a secret that could be guessed; an empty one is none."""
    for secret in secrets:
        if secret.get_secret_value() and len(secret.get_secret_value()) < _SHORTEST_SECRET:
            raise ValueError(f"must have at least {_SHORTEST_SECRET} characters; openssl rand -hex 32 makes one")
