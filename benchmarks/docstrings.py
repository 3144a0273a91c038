"""English text that every machine with Python has: the docstrings of its standard library.

Defaults of decoders were chosen with an eye on it (decision 128), as text off the domain of the calibration.
"""

from __future__ import annotations

import ast
import json
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

# Least characters of a text: short docstrings are joined.
_TEXT = 900
_HELD_OUT = 5


def write_docstrings(folder: Path) -> Path:
    """Write train.jsonl and validation.jsonl with a column text; one file of Python in five is held out, by its name."""
    splits: dict[str, list[str]] = {"train": [], "validation": []}
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        inner = path.relative_to(library)
        if {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"} & set(inner.parts):
            continue
        held_out = zlib.crc32(str(inner).encode()) % _HELD_OUT == 0
        splits["validation" if held_out else "train"] += _texts(path)
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in splits.items():
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _texts(path: Path) -> Iterator[str]:
    """Yield the docstrings of a file, one after the other, in texts of similar length; what is left at the end is dropped."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    joined = ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            joined = f"{joined}\n\n{ast.get_docstring(node) or ''}".strip()
        if len(joined) >= _TEXT:
            yield joined
            joined = ""
