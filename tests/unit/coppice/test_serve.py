"""``coppice serve``: real processes that start, end and fail together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from app.surroundings import misspelt_settings, unusable_roots
from coppice.client import Client
from tests.serving import Serving
from tests.unit.coppice.conftest import Live


@pytest.mark.long
def test_serve_runs_both_and_one_signal_ends_both(tmp_path: Path) -> None:
    import psutil

    with Serving(tmp_path) as (process, url):
        with Client(url) as client:
            assert client.list() == []
        family = psutil.Process(process.pid).children(recursive=True)
        assert family, "the worker is a process of its own"
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 128 + signal.SIGTERM
        assert not [child for child in family if child.is_running()], "it waits for its worker"
    log = (tmp_path / "serve.log").read_text()
    assert "worker.stopping" in log
    assert "uvicorn" not in log
    assert "celery" not in log, "what libraries tell of themselves is not for this log"


@pytest.mark.long
def test_serve_does_not_outlive_its_worker(tmp_path: Path) -> None:
    import psutil

    with Serving(tmp_path) as (process, _url):
        for child in psutil.Process(process.pid).children():
            child.kill()
        assert process.wait(40) == 1
    assert "worker ended by itself" in (tmp_path / "serve.log").read_text()


@pytest.mark.long
def test_serve_says_which_port_is_taken(live: Live, tmp_path: Path) -> None:
    port = live.url.rpartition(":")[2]
    command = [sys.executable, "-m", "coppice.cli", "serve", "--port", port, "--data-dir", str(tmp_path / "other")]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 2
    assert "choose another --port" in told.stderr


def test_serve_says_which_folders_no_job_could_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "coppice.cli", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    for root in ("missing", "file"):
        command += ["--allow-root", str(tmp_path / root)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 2
    assert f"--allow-root {tmp_path / 'missing'} does not exist; make the folder, or correct the name" in told.stderr
    assert f"--allow-root {tmp_path / 'file'} is a file; name a folder" in told.stderr


def test_serve_says_where_its_own_files_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "coppice.cli", "serve", "--port", "0", "--data-dir", str(tmp_path / "file" / "data")]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, "--data-dir" in told.stderr, "is a file" in told.stderr) == (2, True, True), told.stderr


@pytest.mark.long
def test_what_of_the_environment_has_no_effect_is_said(tmp_path: Path) -> None:
    settings = Settings(allowed_roots=(tmp_path, tmp_path / "missing", Path("relative")))
    missing, relative = unusable_roots(settings)
    assert missing == f"{tmp_path / 'missing'} does not exist; make the folder, or correct the name"
    assert "is relative; it counts from the folder that each process is started in" in relative
    given = ["COPPICE_ALOWED_ROOTS", "COPPICE_API_KEY", "COPPICE_URL", "COPPICE_PORT", "COPPICE_ZZZ", "PATH", "COPPICE_DATADIR"]
    assert misspelt_settings(given) == [
        "COPPICE_ALOWED_ROOTS is no setting and is ignored; did you mean COPPICE_ALLOWED_ROOTS?",
        "COPPICE_DATADIR is no setting and is ignored; did you mean COPPICE_DATA_DIR?",
    ]
    environment = os.environ | {"COPPICE_ALLOWED_ROOTS": str(tmp_path / "missing"), "COPPICE_DATA_DIR": str(tmp_path / "data")}
    line = [sys.executable, "-m", "coppice.cli", "doctor", "--json"]
    told = subprocess.run(line, capture_output=True, text=True, check=False, timeout=100, env=environment)
    (found,) = [one for one in json.loads(told.stdout) if one["check"] == "roots"]
    assert (found["status"], "does not exist" in found["found"]) == ("warning", True)
