"""What a run on a GPU imports, and what of it a machine lacks. Nothing but the standard library is imported here."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What `make gpu-pack` puts there for a machine that lacks it; it stands behind the machine's own packages.
SITE = ROOT / "build" / "gpu-site"

# Imports, and the distribution of each. The optional ones serve some parts alone.
NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "numpy": "numpy",
    "scipy": "scipy",
    "pyarrow": "pyarrow",
    "jaxtyping": "jaxtyping",
    "jinja2": "jinja2",
    "yaml": "pyyaml",
    "rich": "rich",
    "matplotlib": "matplotlib",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
    "pytest": "pytest",
}
# What the figures of the documentation are to be of; others are taken, and named in the result.
MEANT = {"python": "3.12", "torch": "2.11", "transformers": "5.17"}


@dataclass(frozen=True)
class Machine:
    """What was found on a machine.

    Attributes:
        versions: Version of Python and of each distribution that is needed and there.
        missing: Distributions that are needed and not there.
        other: Sentences about versions other than those that are meant.
    """

    versions: dict[str, str]
    missing: tuple[str, ...]
    other: tuple[str, ...]


def look(names: dict[str, str] = NEEDED) -> Machine:
    """Look for what is needed, without importing it."""
    if SITE.is_dir() and str(SITE) not in sys.path:
        sys.path.append(str(SITE))
    missing = tuple(own for name, own in names.items() if find_spec(name) is None)
    versions = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name, own in names.items():
        if own not in missing:
            try:
                versions[own] = importlib.metadata.version(own)
            except importlib.metadata.PackageNotFoundError:
                versions[own] = f"unknown ({name} has no metadata)"
    other = tuple(
        f"{name} is {versions[name]}, and the documentation's figures are to be of {meant}"
        for name, meant in MEANT.items()
        if name in versions and not f"{versions[name]}.".startswith(f"{meant}.")
    )
    return Machine(versions, missing, other)
