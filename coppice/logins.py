"""Logins of this user's command line, by service: ``logins.json`` among the user's settings, which nobody else may read."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from coppice.errors import BadArgument

_NAME = "logins.json"
_OTHERS = 0o077


def login_for(url: str) -> str:
    """Return what a service was told to know this user by; empty: nothing.

    Args:
        url: Address of the service.

    Raises:
        BadArgument: Others may read the file, or it cannot be read.
    """
    return _logins().get(url, "")


def keep_login(url: str, login: str) -> Path:
    """Keep the login of a service, in place of an earlier one. Return the file."""
    return _write(_logins() | {url: login})


def forget_login(url: str) -> None:
    """Delete the login of a service."""
    kept = _logins()
    if kept.pop(url, None) is not None:
        _write(kept)


def place() -> Path:
    """Return the file of logins."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "coppice" / _NAME


def _logins() -> dict[str, str]:
    path = place()
    try:
        with path.open(encoding="utf-8") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & _OTHERS:
                raise BadArgument(f"others may read {path}: chmod 600, or delete it and log in again")
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadArgument(f"{path} cannot be read ({error}): delete it, and log in again") from None
    if not isinstance(found, dict) or not all(isinstance(login, str) for login in found.values()):
        raise BadArgument(f"{path} holds no logins: delete it, and log in again")
    return found


def _write(logins: dict[str, str]) -> Path:
    path = place()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Made with the mode 0600, and whole from the moment that it has its name.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{_NAME}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(logins, file, indent=1)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
