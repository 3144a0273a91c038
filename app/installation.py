"""Whether the service has an environment of its own: `app`, `worker` and `migrations` are names that others use, too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "coppice-server"
_PACKAGES = ("app", "worker", "migrations")
_HOME = Path(__file__).resolve().parents[1]
_ADVICE = (
    f"{DISTRIBUTION} wants an environment of its own: "
    f"python -m venv coppice-env && coppice-env/bin/pip install '{DISTRIBUTION}[worker]'"
)


class EnvironmentShared(Exception):
    """Somebody else's packages stand where ours are, or are to be."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}; {_ADVICE}")


@cache
def check_environment() -> None:
    """See that Python finds our packages, and that nobody else has files in them.

    Raises:
        EnvironmentShared: It finds others, or somebody has.
    """
    for name in _PACKAGES:
        spec = find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent
        if found != _HOME / name:
            raise EnvironmentShared(f"Python finds another package {name}, {found}, than {_HOME / name}")
    ours = _installed()
    if ours is None:  # a source tree, into which nobody installs
        return
    for other, name in _namesakes():
        raise EnvironmentShared(f"{other.name} {other.version} is installed here and has a package {name}, too")
    known = {Path(str(ours.locate_file(file))).resolve() for file in ours.files or ()}
    for name in _PACKAGES if known else ():
        for path in sorted((_HOME / name).rglob("*.py")):
            if path not in known:
                raise EnvironmentShared(f"{path} is no file of {DISTRIBUTION}")


def _installed() -> Distribution | None:
    """Find the distribution whose files this code is among; None where it runs from a source tree."""
    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return None
    return found if Path(str(found.locate_file("app"))).resolve() == _HOME / "app" else None


def _namesakes() -> Iterator[tuple[Distribution, str]]:
    for other in distributions():
        if other.name.lower().replace("_", "-") == DISTRIBUTION:
            continue
        files, tops = f"\n{other.read_text('RECORD') or ''}", (other.read_text("top_level.txt") or "").split()
        for name in _PACKAGES:
            if name in tops or f"\n{name}/" in files:
                yield other, name
