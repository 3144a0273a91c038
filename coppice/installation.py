"""Checks that what a command needs is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from coppice.console import ExitCode, fail, note

DISTRIBUTION = "coppice-prune"
SERVER = "coppice-server"
# Somebody else's library of decision trees. Its package is called `coppice`, as ours is.
_NAMESAKE = "coppice"
NAMESAKE_ADVICE = f"pip uninstall --yes {_NAMESAKE}; pip install --force-reinstall --no-deps {DISTRIBUTION}"


def require(module: str, requirement: str) -> None:
    """End the command with a sentence if a library is not installed.

    Args:
        module: Module that the command imports.
        requirement: What to install for it.
    """
    if find_spec(module) is None:
        fail(f"this command needs {module}: pip install '{requirement}'", ExitCode.BAD_INPUT)


def require_server(*, worker: bool = False) -> None:
    """End the command with a sentence if the service is not installed, or not in an environment of its own.

    `app` is imported only once its place shows that it is ours: others use that name, too.

    Args:
        worker: Whether the command needs what prunes, too.
    """
    requirement = f"{SERVER}[worker]" if worker else SERVER
    wanted = f"an environment of its own: python -m venv coppice-env && coppice-env/bin/pip install '{requirement}'"
    place = _place_of_app()
    if place is None:
        fail(f"this command needs {SERVER}, which wants {wanted}", ExitCode.BAD_INPUT)
    spec = find_spec("app")
    found = None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent
    if found != place:
        fail(f"Python finds another package app, {found}, than {place}; {SERVER} wants {wanted}", ExitCode.BAD_INPUT)
    for module in ("fastapi", "torch") if worker else ("fastapi",):
        require(module, requirement)
    from app.installation import EnvironmentShared, check_environment

    try:
        check_environment()
    except EnvironmentShared as error:
        fail(str(error), ExitCode.BAD_INPUT)


def _place_of_app() -> Path | None:
    """Return where the service's `app` is: beside this package in a source tree, else where its distribution put it."""
    tree = Path(__file__).resolve().parents[1]
    if (tree / "deploy" / "server" / "pyproject.toml").is_file():
        return tree / "app"
    try:
        return Path(str(distribution(SERVER).locate_file("app"))).resolve()
    except PackageNotFoundError:
        return None


def namesake() -> str | None:
    """Return name and version of the other distribution with a package `coppice`; None if it is not installed."""
    try:
        return f"{_NAMESAKE} {version(_NAMESAKE)}"
    except PackageNotFoundError:
        return None


def warn_of_namesake() -> None:
    """Print a note if the other distribution with a package `coppice` is installed."""
    if (other := namesake()) is not None:
        note(f"{other} is installed, too, and is not {DISTRIBUTION}; both write the folder coppice/: {NAMESAKE_ADVICE}")
