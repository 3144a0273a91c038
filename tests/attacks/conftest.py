"""The service under attack, and the table of what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.target import Target, running

RESULTS = Path(__file__).parent / "results"
_ROWS: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_sst2: Path
) -> Iterator[Target]:
    """The API, and a worker for the modules that need one; for all attacks of a module."""
    folder = tmp_path_factory.mktemp("attacked")
    folder.chmod(0o755)
    with running(folder, tiny_bert, tiny_sst2, worker=getattr(request.module, "WORKER", False)) as found:
        yield found


@pytest.fixture
def told() -> list[dict[str, Any]]:
    """Rows of the table."""
    return _ROWS


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table, and write it down."""
    if not _ROWS:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "attacks.json").write_text(json.dumps(_ROWS, indent=2) + "\n", encoding="utf-8")
    terminalreporter.section("attacks")
    terminalreporter.line(
        f"{'attack':60} {'row':4} {'answer':28} {'s':>6} {'worst /healthz ms':>17} {'late ms':>7} {'peak MB':>8}  held"
    )
    for row in _ROWS:
        held = "yes" if not row["why"] else f"NO: {row['why'][:100]}"
        terminalreporter.line(
            f"{row['attack'][:60]:60} {row['row']:4} {row['answer'][:28]:28} {row['seconds']:6.1f} {row['worst_ms']:17.0f} "
            f"{row['late_ms']:7.0f} {row['peak_mb']:8.0f}  {held}"
        )
    broken = [row for row in _ROWS if row["why"]]
    terminalreporter.line(f"{len(_ROWS)} attacks, {len(_ROWS) - len(broken)} held; table in {RESULTS / 'attacks.json'}")
