"""The blocks of code of our pages: all of a language, or one by the name that stands behind the language."""

from __future__ import annotations

import re
from pathlib import Path

GUIDES = Path(__file__).resolve().parents[1] / "docs" / "guides"
_BLOCK = re.compile(r"^( *)```([\w-]*) ?([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Give language, name (empty for most) and text of each block of a page, as a reader would copy it."""
    return [(language, name, body) for _, language, name, body in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def block(guide: str, language: str, name: str) -> str:
    """Give one block of a guide."""
    found = [body for *of_it, body in blocks(GUIDES / guide) if of_it == [language, name]]
    assert len(found) == 1, f"{guide}: {len(found)} blocks {name}"
    return found[0]
