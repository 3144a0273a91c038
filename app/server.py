"""The API as a process: what ``coppice api`` and ``coppice serve`` run.

uvicorn, with what it has no setting for (docs/decisions/0103): limits of connections (`app.connections`), and an end that
waits for nobody longer than it was told to. ``uvicorn app.main:create_app --factory`` works too, without the former.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import resource
import socket
from collections.abc import Callable
from functools import partial
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI

from app.connections import Census, Connection, Limits
from app.ending import Ending
from app.settings import Settings

_log = structlog.get_logger(__name__)

_TICKS_A_LOOK = 5  # ticks are 0.1 s
_OTHER_FILES = 1024  # database, uploads, downloads


class Server(uvicorn.Server):
    """uvicorn's server.

    Args:
        config: Its configuration; connections are `Connection`s.
        census: Counts the connections.
        ending: Told when the server is to end, before it waits for requests.
        patience_s: Seconds after that when what is still open is cut off.
        on_end: Called when the server is to end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        census: Census,
        ending: Ending,
        patience_s: float,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._census = census
        self._ending = ending
        self._patience_s = patience_s
        self._on_end = on_end
        self._looked_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and leave what is there by now out of every later search for garbage.

        Modules, routes and schemas are 150,000 objects that stay. Searches through them took up to a tenth of a submit's
        processor time.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections."""
        if counter % _TICKS_A_LOOK == 0:
            moment = asyncio.get_running_loop().time()
            passed_s = 0.0 if self._looked_at is None else moment - self._looked_at
            self._looked_at = moment
            self._census.look(self._connections(), passed_s)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: take no connections, have streams and polls answer, wait a little for the rest, and cut that off."""
        self._ending.begin()
        if self._on_end is not None:
            self._on_end()
        cut = asyncio.get_running_loop().call_later(self._patience_s, self._cut_off)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def _cut_off(self) -> None:
        left = self._connections()
        if left:
            _log.info("api.cut_off", connections=len(left))
        for connection in left:
            connection.transport.abort()

    def _connections(self) -> list[Connection]:
        return cast("list[Connection]", list(self.server_state.connections))


def create_server(app: FastAPI, settings: Settings, on_end: Callable[[], None] | None = None) -> Server:
    """Make the server of an application that was made with the same settings."""
    limits = Limits.of(settings)
    _allow_files(limits.connections + _OTHER_FILES)
    census = Census(limits)
    protocol = cast("type[asyncio.Protocol]", partial(Connection, limits=limits, census=census))
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=protocol,
        ws="none",
        proxy_headers=False,  # the application does it: COPPICE_TRUSTED_PROXIES
        server_header=False,
        log_config=None,
        h11_max_incomplete_event_size=limits.head_bytes,
        timeout_keep_alive=settings.keep_alive_s,
        # Never reached: everything is cut off before. uvicorn would cancel what runs, and tell of each as an error.
        timeout_graceful_shutdown=math.ceil(settings.end_patience_s) + 1,
    )
    return Server(config, census, cast("Ending", app.state.ending), settings.end_patience_s, on_end)


def _allow_files(count: int) -> None:
    """Let this process open as many files as its connections need, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
