"""``coppice serve``: real processes that start, end and fail together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from coppice.client import Client
from tests.servers import wait_until
from tests.unit.coppice.conftest import Live


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


def test_serve_does_not_outlive_its_worker(tmp_path: Path) -> None:
    import psutil

    with Serving(tmp_path) as (process, _url):
        for child in psutil.Process(process.pid).children():
            child.kill()
        assert process.wait(40) == 1
    assert "worker ended by itself" in (tmp_path / "serve.log").read_text()


def test_serve_says_which_port_is_taken(live: Live, tmp_path: Path) -> None:
    port = live.url.rpartition(":")[2]
    command = [sys.executable, "-m", "coppice.cli", "serve", "--port", port, "--data-dir", str(tmp_path / "other")]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 2
    assert "choose another --port" in told.stderr


class Serving:
    """``coppice serve`` on a free port, in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> tuple[subprocess.Popen[bytes], str]:
        import re

        log = self._folder / "serve.log"
        command = [sys.executable, "-m", "coppice.cli", "serve", "--port", "0", "--data-dir", str(self._folder / "data")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COPPICE_")}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            wait_until(lambda: "ready" in log.read_text() or self._process.poll() is not None, "the worker to be ready")
            found = re.search(r"http://[\d.:]+", log.read_text())
            assert found is not None, log.read_text()
        except BaseException:
            self.__exit__()
            raise
        return self._process, found.group()

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
