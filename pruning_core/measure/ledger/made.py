"""Texts that are made at run time, of what Python itself carries: no data is shipped, and none is fetched.

They depend on the version of Python, which the report names, and on the seed.
"""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Modules with much prose in their docstrings, and much code. They are read, and not imported.
_MODULES = (
    *("argparse", "calendar", "configparser", "csv", "difflib", "doctest", "fractions", "functools", "gettext", "heapq"),
    *("http/client", "inspect", "json/__init__", "logging/__init__", "mailbox", "optparse", "pathlib", "pdb", "pickle"),
    *("random", "shelve", "shutil", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading"),
    *("typing", "unittest/case", "urllib/request", "uuid", "zipfile"),
)
_LARGEST = 2**19
_LEAST_LETTERS = 160
_SUMS = 600
_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@cache
def docstrings() -> tuple[str, ...]:
    """Return the longer docstrings of Python's standard library, without the lines of examples."""
    found: list[str] = []
    for node in _definitions():
        text = ast.get_docstring(node) or ""
        prose = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith((">>>", "...")))
        if len(prose) >= _LEAST_LETTERS:
            found.append(prose.strip())
    return tuple(dict.fromkeys(found))


@cache
def source_code() -> tuple[str, ...]:
    """Return functions of Python's standard library, without their docstrings and comments."""
    found: list[str] = []
    for node in _definitions():
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                node.body = body
                code = ast.unparse(node)
                if len(code) >= _LEAST_LETTERS:
                    found.append(code)
    return tuple(dict.fromkeys(found))


def arithmetic(seed: int) -> tuple[str, ...]:
    """Return sentences of arithmetic, all of them true."""
    rng = random.Random(f"{seed}/arithmetic")  # noqa: S311 - a sample, and no secret
    found: list[str] = []
    for _ in range(_SUMS):
        a, b = rng.randint(2, 60), rng.randint(2, 60)
        c, d = rng.randint(0, 5), rng.randint(0, 5)
        forms = (
            f"{a} plus {b} is {a + b}.",
            f"{a + b} - {a} = {b}.",
            f"If you have {a} apples and buy {b} more, you have {a + b} apples.",
            f"{_ONES[c].capitalize()} and {_ONES[d]} make {_ONES[c + d]}.",
            f"{c + 2} times {d + 2} equals {(c + 2) * (d + 2)}.",
        )
        found.append(rng.choice(forms))
    return (" ".join(found),)


@cache
def licence() -> tuple[str, ...]:
    """Return Python's licence; nothing where the installation has none."""
    for folder in (_library(), Path(sysconfig.get_paths()["data"])):
        text = _read(folder / "LICENSE.txt")
        if text:
            return (text,)
    return ()


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LARGEST)
    except (OSError, ValueError):
        return ""


def _definitions() -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """Yield modules, classes and functions of the standard library, in the order of the text."""
    for name in _MODULES:
        text = _read(_library() / f"{name}.py")
        try:
            tree = ast.parse(text)
        except SyntaxError:  # a file larger than what is read
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield node
