"""Print the notes of a release: what CHANGELOG.md says under its version. ``python deploy/release_notes.py v1.2.3``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def notes(text: str, version: str) -> str:
    """Give a version's section, without its heading.

    Raises:
        ValueError: There is none, or nothing stands in it.
    """
    sections = dict(re.findall(r"^## \[?v?([\w.+-]+)\]?[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    found = sections.get(version.removeprefix("v"), "").strip()
    if not found:
        raise ValueError(f"CHANGELOG.md says nothing under {version}: give what stands under Unreleased this name")
    return found


if __name__ == "__main__":
    try:
        sys.stdout.write(notes(CHANGELOG.read_text(encoding="utf-8"), sys.argv[1]) + "\n")
    except ValueError as error:
        sys.exit(str(error))
