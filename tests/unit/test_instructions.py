"""Whatever we tell people to install exists: the distribution by its name, and each extra."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_EXTRAS = r"\[([\w,.-]+)\]"


def test_every_instruction_names_a_distribution_and_extras_that_exist() -> None:
    client = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    server = tomllib.loads((ROOT / "deploy" / "server" / "pyproject.toml").read_text())
    extras = {
        client["name"]: set(client["optional-dependencies"]),
        server["project"]["name"]: set(server["tool"]["hatch"]["metadata"]["hooks"]["custom"]["optional-dependencies"]),
    }
    named = 0
    for path, text in _texts():
        assert not re.search(rf"\bcoppice{_EXTRAS}", text), f"{path} names extras of a stranger's distribution"
        assert not re.search(r"pip install(?: --?\w[\w-]*)* ['\"]?coppice(?![\w{-])", text), (
            f"{path} installs a stranger's library"
        )
        for name, wanted in re.findall(rf"\b(coppice-(?:prune|server)){_EXTRAS}", text):
            assert set(wanted.split(",")) <= extras[name], f"{path}: {name}[{wanted}]"
            named += 1
    assert named > 20


def _texts() -> list[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    kinds = (".md", ".py", ".toml", ".yml", ".yaml", ".html", ".sh")
    names = [name for name in listed if name.endswith(kinds) or "." not in name.rpartition("/")[2]]
    own = "tests/unit/test_instructions.py"
    return [(name, (ROOT / name).read_text()) for name in names if name != own and (ROOT / name).is_file()]
