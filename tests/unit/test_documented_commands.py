"""What the pages tell people to type exists: commands with their options, targets of make, imports, addresses of the API."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from app.main import create_app
from app.settings import Settings
from coppice.cli import app
from tests.guides import blocks

ROOT = Path(__file__).resolve().parents[2]
_OTHERS = ("CHANGELOG.md", "command-line.md")  # what was, and what is made of the commands themselves
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name not in _OTHERS)
_SHELL = ("console", "sh", "bash", "shell")
_HOLE = re.compile(r"[…]|\.\.\.$|<\w+>")  # what a reader fills in


def commands(path: Path) -> list[str]:
    """Give the command lines of a page's blocks, each whole, without prompts and comments."""
    found = []
    for language, _name, body in blocks(path):
        if language not in _SHELL:
            continue
        text = re.sub(r"\\\n\s*", " ", body)
        has_prompts = re.search(r"^\s*\$ ", text, re.MULTILINE)
        for line in text.splitlines():
            typed = re.match(r"\s*\$ (.*)", line) if has_prompts else re.match(r"\s*(.*)", line)
            if typed:
                found.append(re.sub(r"\s+#.*$", "", typed.group(1)))
    return found


def starts(line: str, word: str) -> list[list[str]]:
    """Give the words of each call of a program in a line, where its words can be told."""
    calls = []
    for found in re.finditer(rf"(?:^|[;&|(]\s*|\bthen |\$\()(?:[A-Z_]+=\S+ )*{word} ([^;&|]*)", line):
        try:
            words = shlex.split(re.sub(r"\$\([^)]*\)|\$\w+|'\$PWD'", "X", found.group(1)))
        except ValueError:  # a quote that ends on a later line
            continue
        calls.append([own for own in words if not re.match(r"[<>]|2>", own)])
    return calls


def pages_with(word: str) -> list[Path]:
    return [path for path in PAGES if any(starts(line, word) for line in commands(path))]


def _parsed(words: list[str]) -> None:
    """Parse a command as the command line would, and run nothing."""
    command, context = typer.main.get_command(app), None
    rest = words
    while True:
        with command.make_context(words[0] if words else "", list(rest), parent=context) as context:
            if not hasattr(command, "commands"):
                return
            rest = [*context._protected_args, *context.args]  # as click hands words to the command of a group
            _, command, rest = command.resolve_command(context, rest)


@pytest.mark.parametrize("path", pages_with("coppice"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_has_the_options_that_it_is_given(path):
    for line in commands(path):
        for words in starts(line, "coppice"):
            if not words or any(_HOLE.search(own) for own in words) or words[0] == "--install-completion":
                continue
            try:
                _parsed(words)
            except Exception as error:  # what click raises differs by version
                pytest.fail(f"{line}\n{error!r}: {getattr(error, 'message', '')}")


def test_every_target_of_make_exists():
    listed = subprocess.run(["make", "-pnr", "-C", str(ROOT)], capture_output=True, text=True, check=False).stdout
    targets = set(re.findall(r"^([a-z][\w-]*):", listed, re.MULTILINE))
    named = 0
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        spoken = re.findall(r"`make ([a-z][\w-]*)[^`]*`", text)
        typed = [words[0] for line in commands(path) for words in starts(line, "make") if words]
        for name in (*spoken, *(own for own in typed if not own.startswith("-"))):
            named += 1
            assert name in targets, f"{path.relative_to(ROOT)}: make {name}"
    assert named > 50


def test_every_python_block_parses_and_imports_what_there_is():
    looked = 0
    for path in PAGES:
        for language, _name, body in blocks(path):
            if language not in ("python", "py"):
                continue
            tree = ast.parse(body)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("coppice", "pruning_core"):
                    module = importlib.import_module(node.module)
                    for name in node.names:
                        assert hasattr(module, name.name), f"{path.relative_to(ROOT)}: {node.module} has no {name.name}"
                        looked += 1
    assert looked > 3


def test_every_address_of_the_api_exists(tmp_path):
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    known = [re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path.replace("{path}", ".+")) + "$") for path in paths]
    named = 0
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for method, address in re.findall(r"`(?:(GET|POST|PUT|PATCH|DELETE) )?(/v1/[\w/{}-]*)", text):
            own = re.sub(r"\{\w+\}", "x", address).rstrip("/")
            assert any(pattern.match(own) for pattern in known), f"{path.relative_to(ROOT)}: {method} {address}"
            named += 1
    assert named > 40
