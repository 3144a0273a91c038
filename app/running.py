"""A bare uvicorn that runs the application (``uvicorn app.main:create_app --factory``): what can be set right from within.

``coppice api`` (`app.server`) has limits of connections, which cannot be had from within.
"""

from __future__ import annotations

import math
import signal

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.ending import Ending
from app.settings import Settings

_UNSAID = frozenset({"127.0.0.1", "::1"})  # whom uvicorn trusts where it is told nothing


def adopt_server(settings: Settings, ending: Ending) -> None:
    """Make the uvicorn of this process, if there is one, end in time and believe no proxy that nobody named.

    It is found as the owner of the signal handler, which is the way of sse-starlette too: uvicorn has no other.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, uvicorn.Server):
        return
    ending.follow(server)
    config = server.config
    if config.timeout_graceful_shutdown is None:  # uvicorn would wait for slow clients for ever
        config.timeout_graceful_shutdown = math.ceil(settings.end_patience_s)
    wrapped = config.loaded_app
    # By default uvicorn believes whoever connects from this host. What was chosen by --forwarded-allow-ips counts, unless our
    # own setting is there.
    trusted = config.forwarded_allow_ips
    chosen = not _UNSAID.issuperset(trusted.split(",") if isinstance(trusted, str) else trusted)
    if isinstance(wrapped, ProxyHeadersMiddleware) and (settings.trusted_proxies or not chosen):
        config.loaded_app = wrapped.app
