"""The process that proves a bundle, started ahead: it imports the stock libraries while the bundle is being built.

Those imports are most of the proof of a small model. The process is as fresh as one that is started later: it gets nothing of
the run but its request.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pruning_core.artifacts import fresh
from pruning_core.artifacts.process import Running

_STOCK = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)

# Longer than the imports take on a slow machine; what waits for them goes on without.
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Desk:
    """The files by which a run and the process that proves its bundle talk, in a folder of their own.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def asked(self) -> Path:
        """The request."""
        return self.folder / "request.json"

    @property
    def answered(self) -> Path:
        """The result."""
        return self.folder / "result.json"

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.folder / "log"

    @property
    def stage(self) -> Path:
        """What the process is doing."""
        return self.folder / "stage"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the process. It has a cache of its own: it must load what lies in the bundle, and nothing is left."""
        return os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "home"), "PYTHONWARNINGS": "ignore"}

    @property
    def command(self) -> list[str]:
        """The command line. -P: the script's own folder, which is part of our package, stays off the module path."""
        files = (str(self.asked), str(self.answered), str(os.getpid()), str(self.stage))
        return [sys.executable, "-P", fresh.__file__, *files]

    def ask(self, request: str) -> None:
        """Put down the request, whole or not at all: a process may be waiting for it."""
        partial = self.folder / "request.partial"
        partial.write_text(request, encoding="utf-8")
        partial.replace(self.asked)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A process that waits for its request.

    Attributes:
        desk: Its files.
        process: The process.
    """

    desk: Desk
    process: Running

    @property
    def waits(self) -> bool:
        """Whether it can be asked: it has not ended, and nobody has asked it yet."""
        return self.process.runs and not self.desk.asked.exists()

    def settle(self) -> None:
        """Wait until it has imported its libraries: until then, no time that is measured beside it counts."""
        until = time.monotonic() + _PATIENCE_S
        while not self.desk.stage.exists() and self.process.runs and time.monotonic() < until:
            time.sleep(fresh.LOOK_S)


@contextmanager
def started(*, embeds: bool) -> Generator[Ahead]:
    """Start a process that is there while the context is open.

    Args:
        embeds: Whether it will need sentence-transformers.
    """
    modules = (*_STOCK, "sentence_transformers") if embeds else _STOCK
    with tempfile.TemporaryDirectory(prefix="coppice-accept-") as folder:
        desk = Desk(Path(folder))
        command = [*desk.command, *modules]
        with Running(command, cwd=desk.folder, env=desk.environment, log=desk.log) as process:
            yield Ahead(desk, process)
