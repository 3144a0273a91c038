"""Build hooks of coppice-server: its packages stand two folders up in the repository, and beside this file in an sdist."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_PACKAGES = ("app", "worker", "migrations")


class Packages(BuildHookInterface[Any]):
    """Takes the packages from the repository."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Include the packages, unless this is an sdist, which has them, or an editable build, which points to them."""
        here = Path(self.root)
        if version == "editable" or (here / "PKG-INFO").is_file():
            return
        build_data["force_include"] |= {str(here.parents[1] / name): name for name in _PACKAGES}


class Metadata(MetadataHookInterface):
    """Gives both distributions one version, and makes the one depend on the very same version of the other."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the version; an sdist has it in its PKG-INFO."""
        if "version" in metadata:
            return
        root = Path(self.root).parents[1] / "pyproject.toml"
        version: str = tomllib.loads(root.read_text(encoding="utf-8"))["project"]["version"]
        metadata["version"] = version
        metadata["dependencies"] = _filled(self.config["dependencies"], version)
        extras: dict[str, list[str]] = self.config["optional-dependencies"]
        metadata["optional-dependencies"] = {name: _filled(needs, version) for name, needs in extras.items()}


def _filled(requirements: list[str], version: str) -> list[str]:
    return [requirement.format(version=version) for requirement in requirements]
