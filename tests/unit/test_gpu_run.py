"""The run for a machine with a GPU, rehearsed on a CPU: nobody can mend it in the minutes that such a machine is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.needs import NEEDED, ROOT, look
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.running import command_of, read_rows, run_apart, write_row

MINUTES = 8


@pytest.mark.slow
@pytest.mark.long
def test_a_dry_run_does_every_part_and_writes_one_table_and_one_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dry-run", "--together", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [own["name"] for own in found["parts"]] == [part.name for part in PARTS]
    assert all(own["status"] == "done" and own["rows"] for own in found["parts"])
    rows = [row for own in found["parts"] for row in own["rows"]]
    # Each row has its line in the table, which is printed as it is written.
    table = (tmp_path / "gpu.txt").read_text()
    assert all(f"| {row['what']} |" in table for row in rows)
    assert table in capsys.readouterr().out
    assert found["dry_run"]
    assert table.startswith("A dry run")


@pytest.mark.slow
@pytest.mark.long
def test_a_part_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    part = next(own for own in PARTS if own.name == "widths")
    found = run_apart(
        part.name, command_of(part, dry=True, rows=tmp_path / "rows"), 300, tmp_path / "rows", tmp_path / "gpu.log"
    )
    assert (found.status, found.problem) == ("done", None), (tmp_path / "gpu.log").read_text()
    assert found.rows


_ROW = "import json, sys; open(sys.argv[1], 'a').write(json.dumps({'what': 'first'}) + '\\n'); "


@pytest.mark.parametrize(
    ("code", "seconds", "status", "problem"),
    [
        ("raise SystemExit('no such kernel')", 60, "failed", "no such kernel"),
        ("import os; os.abort()", 60, "failed", "it said nothing"),
        ("import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)", 2, "out of time", "ended after 2 s"),
        ("open(sys.argv[1], 'a').write('{\"what\": \"ha')", 60, "done", None),
    ],
    ids=["fails", "crashes", "hangs", "half a row"],
)
def test_what_becomes_of_a_part_leaves_its_rows(
    tmp_path: Path, code: str, seconds: float, status: str, problem: str | None
) -> None:
    command, began = [sys.executable, "-c", _ROW + code, str(tmp_path / "rows")], time.monotonic()
    found = run_apart("one", command, seconds, tmp_path / "rows", tmp_path / "gpu.log")
    assert (found.status, found.rows) == (status, [{"what": "first"}])
    assert found.problem is None if problem is None else problem in str(found.problem)
    assert time.monotonic() - began < 30, "what it started is ended with it"


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none") == []
    write_row(tmp_path / "rows", "8 x 512", {"dense_ms": 2.5, "refused": "no"})
    assert read_rows(tmp_path / "rows") == [{"what": "8 x 512", "dense_ms": 2.5, "refused": "no"}]


def test_the_whole_ends_in_time() -> None:
    assert sum(part.budget_s for part in PARTS) <= MINUTES * 60 - 20
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_what_is_missing_is_said_before_anything_is_imported() -> None:
    assert look({"json": "json", "no_such_module": "no-such"}).missing == ("no-such",)
    assert not look().missing, "the rehearsal has all that is needed"
    bare = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "benchmarks.gpu"], cwd=ROOT, env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("missing here: torch, transformers, ")
    assert "make gpu-pack" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_says_which_versions_are_other_than_meant() -> None:
    found = look({name: NEEDED[name] for name in ("torch", "numpy")})
    assert set(found.versions) == {"python", "torch", "numpy"}
    assert any(said.startswith("torch is ") for said in found.other) == (not found.versions["torch"].startswith("2.11."))


def test_the_guide_tells_every_part_and_its_time() -> None:
    guide = (ROOT / "docs" / "guides" / "gpu.md").read_text(encoding="utf-8")
    told = {
        line.split("`")[1]: line.rstrip(" |").rpartition("|")[2].strip()
        for line in guide.splitlines()
        if line.startswith("| `")
    }
    assert told == {part.name: str(part.budget_s) for part in PARTS}
