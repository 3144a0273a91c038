"""The base installation is client and command line: they need neither torch nor the server's packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SERVER = (
    "fastapi",
    "celery",
    "sqlalchemy",
    "alembic",
    "uvicorn",
    "pydantic_settings",
    "structlog",
    "app",
    "worker",
    "migrations",
)
HEAVY = ("torch", "transformers", "numpy", "pyarrow", "scipy", "sklearn", "datasets")


@pytest.mark.parametrize("statement", ["import coppice", "import coppice.cli", "import coppice.demo"])
def test_importing_works_without_them(statement: str, tmp_path: Path) -> None:
    # A module that is None in sys.modules cannot be imported.
    hide = f"import sys; sys.modules.update(dict.fromkeys({SERVER + HEAVY!r}))"
    _python(f"{hide}; {statement}", tmp_path)


@pytest.mark.long
def test_help_works_without_them(tmp_path: Path) -> None:
    hide = f"import sys; sys.modules.update(dict.fromkeys({SERVER + HEAVY!r}))"
    for command in ("run", "prune", "jobs", "report", "keys", "serve", "worker", "migrate"):
        _python(f"{hide}; sys.argv = ['coppice', {command!r}, '--help']; from coppice.cli import main; main()", tmp_path)


def test_importing_leaves_nothing_behind(tmp_path: Path) -> None:
    _python("import coppice.cli, coppice.demo", tmp_path)
    assert list(tmp_path.iterdir()) == []


def _python(code: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
