"""The lock files: every line has its hashes, they are what the distributions ask for, and what was tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.locks import CONSTRAINTS, CPU_BUILDS, FOLDER, SETS, cpu_hashes, read, requirements

# What constraints.txt cannot have: it is of one Python, and of torch without CUDA.
ELSEWHERE = re.compile(r"nvidia-|cuda-|triton$|setuptools$|async-timeout$|httpx2-jsfetch$")
PINNED = {
    canonicalize_name(name): version
    for name, version in (line.split("==") for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#"))
}


@pytest.mark.parametrize("name", SETS)
def test_every_version_is_the_tested_one_and_has_hashes(name: str) -> None:
    pins = read(FOLDER / f"{name}.txt")  # fails on a line without hashes
    assert len({(pin.name, pin.marker) for pin in pins}) == len(pins)
    for pin in pins:
        if not ELSEWHERE.match(pin.name):
            assert PINNED.get(pin.name) == pin.version, pin.name


@pytest.mark.parametrize("name", SETS)
def test_a_set_satisfies_what_the_distributions_ask_for(name: str) -> None:
    pins = {pin.name: pin for pin in read(FOLDER / f"{name}.txt")}
    for requirement in map(Requirement, requirements(SETS[name])):
        pin = pins[canonicalize_name(requirement.name)]
        assert SpecifierSet(str(requirement.specifier)).contains(pin.version), requirement


def test_the_sets_of_files_and_of_the_table_are_the_same() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*SETS, CPU_BUILDS.stem}


@pytest.mark.parametrize("name", ["worker", "worker-cpu"])
def test_torch_is_accepted_from_the_default_index_and_as_a_build_for_cpus(name: str) -> None:
    (torch,) = (pin for pin in read(FOLDER / f"{name}.txt") if pin.name == "torch")
    assert cpu_hashes()
    assert set(cpu_hashes().values()) < set(torch.hashes)
    assert all(file.startswith(f"torch-{torch.version}+cpu-") for file in cpu_hashes())
    cuda = any(pin.name.startswith("nvidia-cu") for pin in read(FOLDER / f"{name}.txt"))
    assert cuda == (name == "worker")


def test_no_file_names_an_index() -> None:
    for path in FOLDER.iterdir():
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", path.read_text())


@pytest.mark.parametrize("line", ["redis==8.1.0", "redis>=8 --hash=sha256:" + "a" * 64, "redis==8.1.0 --hash=md5:" + "a" * 32])
def test_the_check_can_fail(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.txt").write_text(line + "\n")
    with pytest.raises(AssertionError, match="not a pin with hashes"):
        read(tmp_path / "x.txt")
