"""``coppice serve`` as people start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers import wait_until


class Serving:
    """``coppice serve`` on a free port, in a session of its own.

    Args:
        folder: Folder that it is started in, for its log and its data.
        options: Further options.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options

    def __enter__(self) -> tuple[subprocess.Popen[bytes], str]:
        log = self._folder / "serve.log"
        command = [sys.executable, "-P", "-m", "coppice.cli", "serve", "--port", "0", "--data-dir", str(self._folder / "data")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COPPICE_")}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *self._options],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
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
