"""The file that ``--spec`` names: its fields as they stand there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from coppice.console import ExitCode, fail


def holds(fields: Mapping[str, Any], path: str) -> bool:
    """Return whether a spec file has a field, by its dotted path."""
    if path == "task.dataset" and "data" in fields:
        return True
    inner: object = fields
    for part in path.split("."):
        if not isinstance(inner, Mapping) or part not in inner:
            return False
        inner = cast("Mapping[str, object]", inner)[part]
    return True


def read_spec(path: Path) -> dict[str, Any]:
    """Read a spec file as it stands. One that cannot be read ends the command."""
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"{path} cannot be read ({error.strerror})", ExitCode.BAD_INPUT)
    except json.JSONDecodeError as error:
        fail(f"{path} is not JSON: {error.msg}, in line {error.lineno}, column {error.colno}", ExitCode.BAD_INPUT)
    except ValueError:
        fail(f"{path} is not JSON: it is not UTF-8 text", ExitCode.BAD_INPUT)
    except RecursionError:
        fail(f"{path} is nested too deeply", ExitCode.BAD_INPUT)
    if not isinstance(document, Mapping):
        fail(f"{path} must hold a JSON object", ExitCode.BAD_INPUT)
    return dict(cast("Mapping[str, Any]", document))
