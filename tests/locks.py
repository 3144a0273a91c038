"""``make lock``: what images and releases install, with the hash of every file that is accepted.

A set is made of the ranges of both distributions, narrowed to the versions of ``constraints.txt``. uv resolves it for all
machines and Pythons at once, and names no index in what it writes.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "requirements"
CONSTRAINTS = ROOT / "constraints.txt"
# Builds of torch for CPUs have hashes of their own, and are not on the default index: those that were seen, by file.
CPU_BUILDS = FOLDER / "torch-cpu.txt"
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
_OURS = ("coppice-prune", "coppice-server")
# What torch's builds with CUDA need, and those for CPUs do not.
_CUDA = re.compile(r"(nvidia-|cuda-|triton\b)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_HEAD = """# Made by `make lock` of both pyproject.toml and constraints.txt; a test sees that they agree.
# It is complete: pip install --no-deps --require-hashes --requirement deploy/requirements/{name}.txt && pip check
"""


@dataclass(frozen=True)
class LockedSet:
    """A file: a distribution of ours with its extras, or other packages; and whether torch comes with CUDA."""

    extras: tuple[str, ...] = ()
    distribution: str | None = "coppice-server"
    more: tuple[str, ...] = ()
    cuda: bool = True


SETS: Mapping[str, LockedSet] = {
    "api": LockedSet(("oidc", "redis", "postgres", "s3")),
    "worker": LockedSet(("worker", "redis", "postgres", "s3")),
    "worker-cpu": LockedSet(("worker", "redis", "postgres", "s3"), cuda=False),
    "prune": LockedSet(("load", "prune", "verify", "onnx", "mlflow", "push"), distribution="coppice-prune"),
    "build": LockedSet(distribution=None, more=("hatchling",)),
    "flower": LockedSet(distribution=None, more=("celery", "flower", "redis")),
}


@dataclass(frozen=True)
class Pin:
    """A line of a file: the package, its version, the platforms it is for, and the hashes that are accepted."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def read(path: Path) -> list[Pin]:
    """Read a file of pins. A line of another form is an error."""
    pins: list[Pin] = []
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"([a-z0-9.\-]+)==(\S+)(?: ; (.+?))?((?: +--hash=sha256:[0-9a-f]{64})+) *", line)
        assert found is not None, f"{path.name}: not a pin with hashes: {line}"
        name, version, marker, hashes = found.groups()
        pins.append(Pin(name, version, (marker or "").strip(), tuple(_HASH.findall(hashes))))
    return pins


def requirements(wanted: LockedSet) -> list[str]:
    """Return what a set asks of the index: our own distributions are replaced by what they need."""
    found: dict[str, None] = dict.fromkeys(wanted.more)
    for requirement in () if wanted.distribution is None else _needs(wanted.distribution, wanted.extras):
        found[requirement] = None
    return sorted(found)


def cpu_hashes() -> dict[str, str]:
    """Return the hashes of torch's builds for CPUs, by file."""
    lines = [line.split() for line in CPU_BUILDS.read_text().splitlines() if line and not line.startswith("#")]
    return {name: digest for digest, name in lines}


def _needs(distribution: str, extras: Iterable[str]) -> Iterable[str]:
    base, optional = _tables()[distribution]
    for requirement in [*base, *(line for extra in extras for line in optional[extra])]:
        parsed = Requirement(requirement.replace("=={version}", ""))
        if parsed.name in _OURS:
            yield from _needs(parsed.name, sorted(parsed.extras))
        else:
            yield requirement


def _tables() -> dict[str, tuple[list[str], dict[str, list[str]]]]:
    client = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    server = tomllib.loads((ROOT / "deploy/server/pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]["custom"]
    return {
        "coppice-prune": (client["dependencies"], client["optional-dependencies"]),
        "coppice-server": (server["dependencies"], server["optional-dependencies"]),
    }


def _compile(uv: str, lines: list[str], excluded: Iterable[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        asked, left_out, made = (Path(folder) / name for name in ("asked.in", "excluded", "made.txt"))
        asked.write_text("\n".join(lines))
        left_out.write_text("\n".join(excluded))
        options = [
            "--universal",
            "--python-version",
            PYTHONS[0],
            "--generate-hashes",
            "--strip-extras",
            "--no-annotate",
            "--no-header",
        ]
        files = ["--constraint", str(CONSTRAINTS), "--excludes", str(left_out), "--output-file", str(made), str(asked)]
        subprocess.run([str(Path(uv).resolve()), "pip", "compile", "--quiet", *options, *files], check=True, cwd=folder)
        return _of_linux(made.read_text())


def _of_linux(text: str) -> str:
    """Leave out what only other systems need: images are Linux."""
    lines, keep = [], True
    for line in text.splitlines():
        if not line.startswith(" "):
            keep = "sys_platform == 'win32'" not in line and "platform_system == 'Windows'" not in line
        if keep:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _see_cpu_build() -> None:
    """Note the builds of torch for CPUs that pip finds here, if it finds any."""
    wanted = next(pin for pin in CONSTRAINTS.read_text().splitlines() if pin.startswith("torch==")) + "+cpu"
    known = cpu_hashes()
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder, wanted]
        for python in PYTHONS:
            for machine in MACHINES:
                platform = ["--python-version", python, "--platform", f"manylinux_2_28_{machine}"]
                subprocess.run([*pip, *platform], check=False, capture_output=True)  # most indexes have none of these
        for path in Path(folder).glob("torch-*+cpu*.whl"):
            known[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    head = [line for line in CPU_BUILDS.read_text().splitlines() if line.startswith("#")]
    current = {name: digest for name, digest in known.items() if name.startswith(wanted.replace("==", "-"))}
    CPU_BUILDS.write_text("\n".join([*head, *(f"{digest} {name}" for name, digest in sorted(current.items()))]) + "\n")


def _with_cpu_hashes(text: str) -> str:
    more = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(cpu_hashes().values()))
    return re.sub(
        r"(?m)^(torch==.*?--hash=sha256:[0-9a-f]{64})$(?!\n    --hash)", lambda line: line[1] + more, text, flags=re.DOTALL
    )


def main(uv: str) -> None:
    """Write every file."""
    _see_cpu_build()
    cuda = [pin.split("==")[0] for pin in _compile(uv, ["torch"], ()).splitlines() if _CUDA.match(pin)]
    for name, wanted in SETS.items():
        text = _compile(uv, requirements(wanted), () if wanted.cuda else cuda)
        (FOLDER / f"{name}.txt").write_text(_HEAD.format(name=name) + _with_cpu_hashes(text))
        print(f"{name}: {len(read(FOLDER / f'{name}.txt'))} packages")


if __name__ == "__main__":
    main(sys.argv[1])
