"""JSON files of a model's folder, bounded, and refused by their names. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pruning_core.errors import ModelUnreadable
from pruning_core.files.bounded_json import JsonRefused, read_json


def read_document(folder: Path, name: str, *, most_bytes: int) -> object:
    """Read one file; None where the folder does not have it.

    Raises:
        ModelUnreadable: It is no JSON, or larger, or nested deeper, than what is read.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        return read_json(path, most_bytes=most_bytes)
    except JsonRefused as error:
        raise ModelUnreadable(f"{name} {error}", param="model") from None
    except OSError:
        raise ModelUnreadable(f"{name} cannot be read", param="model") from None


def read_object(folder: Path, name: str, *, most_bytes: int) -> dict[str, Any] | None:
    """Read one file that holds an object; None where the folder does not have it.

    Raises:
        ModelUnreadable: As `read_document`, or it holds something else.
    """
    path = folder / name
    if not path.is_file():
        return None
    found = read_document(folder, name, most_bytes=most_bytes)
    if not isinstance(found, dict):
        raise ModelUnreadable(f"{name} must be a JSON object", param="model")
    return cast("dict[str, Any]", found)
