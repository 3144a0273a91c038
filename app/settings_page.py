"""The page of all settings, made from `app.settings`: ``python -m app.settings_page > docs/guides/settings.md``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings

_HEAD = """# Settings

Made by `make settings-page` from `app/settings`; a test sees that it is current. Every process of the service reads the same
environment variables; `coppice doctor` looks whether what they name is there. What makes no sense is said in one line when a
process starts.

| variable | default | what |
| --- | --- | --- |
"""


def page() -> str:
    """Return the whole page in Markdown."""
    return _HEAD + "".join(f"{row}\n" for row in _rows())


def _rows() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        yield f"| `{Settings.model_config.get('env_prefix', '')}{name.upper()}` | {_default(field)} | {_told(field)} |"


def _told(field: FieldInfo) -> str:
    kinds = [kind for kind in (*get_args(field.annotation), field.annotation) if kind in (int, float, bool)]
    limits = [
        f"{words} {value:,}"
        for words, name in (("at least", "ge"), ("more than", "gt"), ("at most", "le"), ("less than", "lt"))
        for limit in field.metadata
        if (value := getattr(limit, name, None)) is not None
    ]
    facts = [_KINDS[kind] for kind in kinds] + limits
    text = re.sub(r"\s+", " ", field.description or "").replace("|", r"\|")
    return f"{text} ({', '.join(facts)})" if facts else text


_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Path):
        return f"`{value}`"
    if value is None or isinstance(value, str | SecretStr | tuple):
        shown = value.get_secret_value() if isinstance(value, SecretStr) else value
        shown = ",".join(map(str, shown)) if isinstance(shown, tuple) else shown
        return f"`{shown}`" if shown else "empty"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(page())
