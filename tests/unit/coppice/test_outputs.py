"""Places to write to are tried before any work, for every command that takes one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coppice import outputs
from coppice.cli import app
from coppice.faults import no_traceback
from coppice.outputs import OutputUnusable, check_file, check_folder

NOBODY = "http://127.0.0.1:9"  # the discard port: a command that came to ask there would end with 3
TOO_LONG = "a" * 300


def call(*arguments: str | Path):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"TERM": "dumb", "COLUMNS": "200"})


def place(kind: str, folder: Path) -> tuple[Path, str]:
    """Return a place that cannot be written, and what is to be said of it."""
    (folder / "file").write_text("precious")
    (folder / "nowhere").symlink_to(folder / "not-there")
    return {
        "a file": (folder / "file", "is a file"),
        "in a file": (folder / "file" / "out", "file is a file, so that no folder can be made in it"),
        "too long": (folder / TOO_LONG, "the name is too long"),
        "of the kernel": (Path("/proc/coppice/out"), "no folder can be made there"),
        "a dead link": (folder / "nowhere", "is a link that leads nowhere"),
        "not empty": (folder, "holds files already"),
    }[kind]


KINDS = ["a file", "in a file", "too long", "of the kernel", "a dead link", "not empty"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["run", "prune", "expand"])
def test_a_place_that_takes_nothing_is_refused_before_any_work(name: str, kind: str, tmp_path: Path) -> None:
    out, says = place(kind, tmp_path)
    compressed = tmp_path / "compressed"
    compressed.mkdir()
    job = ["--model", "org/name", "--task", "glue/sst2", "--sparsity", "0.5"]
    command = {"run": ["run", *job], "prune": ["prune", *job, "--url", NOBODY], "expand": ["expand", compressed]}[name]
    told = call(*command, "--out", out)
    assert told.exit_code == 2, told.output
    assert says in told.stderr
    assert "--out" in told.stderr
    assert "Traceback" not in told.output
    assert (tmp_path / "file").read_text() == "precious"
    assert len(told.stderr) < 500


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("file/page.html", "the folder FOLDER/file is a file"),
        ("missing/page.html", "the folder FOLDER/missing does not exist; make it"),
        ("", "is a folder; name a file, such as FOLDER/report.html"),
        (TOO_LONG, "the name is too long"),
    ],
)
def test_a_report_has_its_page_written_or_says_so_before_it_asks(path: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = call("report", "job_x", "--url", NOBODY, "--out", tmp_path / path)
    assert told.exit_code == 2, told.output
    assert says.replace("FOLDER", str(tmp_path)) in told.stderr


def test_a_good_place_is_left_as_it_was(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path)
    check_file(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "page.html").write_text("old")
    check_file(tmp_path / "page.html")
    check_folder(tmp_path, may_hold_files=True)
    assert (tmp_path / "page.html").read_text() == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputUnusable, match="this user may not write there"):
            check_folder(tmp_path / "out")
        with pytest.raises(OutputUnusable, match="this user may not write there"):
            check_file(tmp_path / "page.html")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_noticed_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", full)
    with pytest.raises(OutputUnusable, match="cannot be written: the disk is full; name another place"):
        check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (
            ZeroDivisionError("division by zero"),
            70,
            "a fault of Coppice's own, and none of yours (ZeroDivisionError: division by",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x/y"), 2, "error: /x/y: no such file or directory"),
    ],
)
def test_no_traceback_is_shown_unless_asked_for(
    error: Exception, code: int, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for debugs in (False, True):
        if debugs:
            monkeypatch.setenv("COPPICE_DEBUG", "1")
        with pytest.raises(SystemExit) as ended, no_traceback():
            raise error
        told = capsys.readouterr().err
        assert ended.value.code == code
        assert says in told
        assert ("Traceback" in told) is debugs
    assert code == 2 or "Please report it" in told
