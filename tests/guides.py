"""The blocks of code of our guides, by the name that stands behind the language."""

from __future__ import annotations

import re
from pathlib import Path

GUIDES = Path(__file__).resolve().parents[1] / "docs" / "guides"


def block(guide: str, language: str, name: str) -> str:
    """Give one block, as a reader would copy it."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language} {re.escape(name)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{guide}: {len(found)} blocks {name}"
    return found[0]
