"""Files of this room that are made of transformers by `tests`: what it declares, expects and names. Torch-free."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

NAMES = ("config_fields", "expected_tensors", "image_processors", "tokenizer_classes")


@cache
def declared(name: str) -> dict[str, Any]:
    """Read one of `NAMES`, once."""
    return json.loads(files(__package__ or "").joinpath(f"{name}.json").read_text(encoding="utf-8"))
