"""kombu's filesystem transport, made safe for several readers and for full disks.

kombu writes a message under its final name, so that a reader can take an empty or half-written file, and one such file ends
its whole consumer. Here a message gets its name when it is complete; whoever deletes it has taken it; what cannot be read is
dropped, because the database knows what is to be done and the reaper wakes again. Their order means nothing: a message says
that there is work, and the claim chooses.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

import structlog
from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

SCHEME = "coppice-folder"

_log = structlog.get_logger(__name__)


class Channel(filesystem.Channel):
    """A folder of messages, each of them whole."""

    def _put(self, queue: str, payload: dict[str, Any], **_kwargs: Any) -> None:
        folder = Path(self.data_folder_out)
        hidden = folder / f".{uuid4().hex}.tmp"
        try:
            hidden.write_text(dumps(payload), encoding="utf-8")
            hidden.replace(folder / f"{uuid4().hex}.{queue}.msg")
        except OSError as error:
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise ChannelError(f"the message cannot be written ({error.strerror})") from error

    def _get(self, queue: str) -> dict[str, Any]:
        for path in Path(self.data_folder_in).glob(f"*.{queue}.msg"):
            try:
                text = path.read_text(encoding="utf-8")
                path.unlink()
            except OSError:
                continue  # another reader was first
            with contextlib.suppress(ValueError):
                return loads(text)
            _log.warning("broker.message_dropped", queue=queue)
        raise Empty


class Transport(filesystem.Transport):
    """The transport behind our scheme of URLs."""

    Channel = Channel


def register() -> None:
    """Make the scheme known to kombu; twice is once."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
