"""What is installed here, and what a command needs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from coppice.console import ExitCode, fail, note

DISTRIBUTION = "coppice-prune"
SERVER = "coppice-server"
# Called as our package is: a library of decision trees, which has a package `coppice`, too.
_NAMESAKE = "coppice"
NAMESAKE_ADVICE = f"pip uninstall --yes {_NAMESAKE}; pip install --force-reinstall --no-deps {DISTRIBUTION}"


def require(module: str, requirement: str) -> None:
    """Leave with a sentence where a library is not installed.

    Args:
        module: What is to be imported.
        requirement: What brings it.
    """
    if find_spec(module) is None:
        fail(f"this command needs {module}: pip install '{requirement}'", ExitCode.BAD_INPUT)


def require_server(*, worker: bool = False) -> None:
    """Leave with a sentence where the service is not installed, or not in an environment of its own.

    Nothing of it is imported before it is known to be ours: `app` is a name that others use, too.

    Args:
        worker: Whether the command prunes.
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
    """Say where the service's `app` is: beside this package in a source tree, else where its distribution has put it."""
    tree = Path(__file__).resolve().parents[1]
    if (tree / "deploy" / "server" / "pyproject.toml").is_file():
        return tree / "app"
    try:
        return Path(str(distribution(SERVER).locate_file("app"))).resolve()
    except PackageNotFoundError:
        return None


def namesake() -> str | None:
    """Name the other distribution with a package `coppice`, and its version, where it is installed."""
    try:
        return f"{_NAMESAKE} {version(_NAMESAKE)}"
    except PackageNotFoundError:
        return None


def warn_of_namesake() -> None:
    """Say that another distribution is installed that writes the same files."""
    if (other := namesake()) is not None:
        note(f"{other} is installed, too, and is not {DISTRIBUTION}; both write the folder coppice/: {NAMESAKE_ADVICE}")
