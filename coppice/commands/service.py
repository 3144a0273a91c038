"""Commands that run the service: ``serve``, ``api``, ``worker``, ``migrate``."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from coppice import console
from coppice.commands.places import require_free
from coppice.console import ExitCode, fail, fail_all
from coppice.installation import require_server

if TYPE_CHECKING:
    import uvicorn

    from app.db import Database
    from app.keys.service import KeyService
    from app.operations.tenants import TenantDeletion
    from app.settings import Settings

_WORKER_GRACE_S = 20
_BACKLOG = 128
_OPEN = (
    "without authentication the service listens on loopback only; set COPPICE_AUTH=true and make a key with "
    "coppice keys create, or put a proxy that authenticates in front of it"
)
# -P: the current folder is not searched, where a folder `worker` need not be ours.
_WORKER_COMMAND = [sys.executable, "-P", "-m", "worker.main"]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port (default 8000); 0 picks a free one.")] = None,
    allow_root: Annotated[list[Path] | None, typer.Option(help="Folder under which jobs may name paths; repeatable.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for database, queue and artifacts.")] = None,
) -> None:
    """Run the whole service in one place: API and worker on the local profile. Nothing else to install, Ctrl-C ends it.

    Example: coppice serve --allow-root /data --port 8000
    """
    require_server(worker=True)
    if data_dir is not None:
        require_free(data_dir, "--data-dir", may_hold_files=True)
    # The worker is a process of its own and reads the same environment.
    overrides = {
        "COPPICE_HOST": host,
        "COPPICE_PORT": None if port is None else str(port),
        "COPPICE_DATA_DIR": None if data_dir is None else str(data_dir.absolute()),
        "COPPICE_ALLOWED_ROOTS": os.pathsep.join(str(path.absolute()) for path in allow_root) if allow_root else None,
    }
    os.environ.update({name: value for name, value in overrides.items() if value is not None})
    os.environ.setdefault("COPPICE_LOG_JSON", "false")

    from app.main import create_app
    from app.server import create_server

    settings = read_settings()
    if not _is_loopback(settings.host) and not settings.auth:
        fail(_OPEN, ExitCode.BAD_INPUT)
    if allow_root and (unusable := _unusable_roots(settings)):
        fail_all([f"--allow-root {sentence}" for sentence in unusable], ExitCode.BAD_INPUT)
    _warn_of(settings)
    _migrate()
    listener = _listen(settings.host, settings.port)
    application = create_app()
    shown = f"http://{settings.host}:{listener.getsockname()[1]}"
    worker = subprocess.Popen([*_WORKER_COMMAND, str(os.getpid())], stdin=subprocess.DEVNULL)
    server = create_server(application, settings, on_end=worker.terminate)  # both have their time at once
    threading.Thread(target=_end_with, args=(worker, server), daemon=True).start()
    signal.signal(signal.SIGTERM, _leave)  # uvicorn passes it on after its shutdown; the worker is still to be stopped
    console.err.print(f"Coppice listens on {shown}; Ctrl-C ends it", highlight=False)
    try:
        server.run(sockets=[listener])
    finally:
        ended_by_itself = worker.poll() is not None
        _stop(worker)
    if ended_by_itself:
        fail(f"the worker ended by itself with code {worker.returncode}; its log above says why", ExitCode.JOB_FAILED)


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: COPPICE_HOST, 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; default: COPPICE_PORT, 8000. 0 picks a free one.")
    ] = None,
) -> None:
    """Run one API process, without a worker. The database must have been migrated.

    Example: coppice api --host 0.0.0.0 --port 8000
    """
    require_server()
    overrides = {"COPPICE_HOST": host, "COPPICE_PORT": None if port is None else str(port)}
    os.environ.update({name: value for name, value in overrides.items() if value is not None})

    from app.main import create_app
    from app.server import create_server

    settings = read_settings()
    _warn_of(settings)
    application = create_app()
    if not _is_loopback(settings.host) and not settings.auth:  # a proxy that authenticates may stand in front
        console.err.print(f"warning: {_OPEN}", highlight=False, markup=False)
    listener = _listen(settings.host, settings.port)
    create_server(application, settings).run(sockets=[listener])


def worker() -> None:
    """Run one worker. It takes jobs from the queue, one at a time, and runs each in a process of its own."""
    require_server(worker=True)
    os.execv(sys.executable, _WORKER_COMMAND)


def migrate() -> None:
    """Bring the database to this version's schema. Run it before the new version of the API and of the workers starts."""
    require_server()
    _migrate()


def _migrate() -> None:
    from sqlalchemy.exc import OperationalError

    from app.db import Database
    from app.logs import first_line
    from app.settings import DataFolderUnusable
    from migrations import upgrade

    settings = read_settings()
    try:
        database = Database.of(settings)
        try:
            upgrade(database)
        finally:
            database.close()
    except (OSError, OperationalError) as error:
        if isinstance(error, OSError) and error.filename:
            fail(str(DataFolderUnusable(error)), ExitCode.UNREACHABLE)
        reason = first_line(error.orig if isinstance(error, OperationalError) else error)
        fail(f"the database cannot be used: {reason}", ExitCode.UNREACHABLE)


@contextmanager
def open_database() -> Generator[tuple[Settings, Database]]:
    """Open the service's own database, which is migrated first. Call `require_server` before."""
    _migrate()
    import logging

    from app.db import Database
    from app.logs import configure_logging

    settings = read_settings()
    configure_logging(as_json=settings.log_json)
    logging.getLogger().setLevel(logging.WARNING)  # the command itself says what it does
    database = Database.of(settings)
    try:
        yield settings, database
    finally:
        database.close()


@contextmanager
def open_tenants() -> Generator[TenantDeletion]:
    """Open the deletion of tenants in the service's own database and stores. Call `require_server` before."""
    from app.operations.tenants import TenantDeletion
    from app.storage import create_store

    with open_database() as (settings, database):
        yield TenantDeletion(settings, database, create_store(settings))


@contextmanager
def open_keys() -> Generator[KeyService]:
    """Open the API keys in the service's own database, which is migrated first. Call `require_server` before."""
    from app.keys.service import KeyService
    from app.secret import ServerSecret

    with open_database() as (settings, database):
        yield KeyService(database, ServerSecret(settings))


def read_settings() -> Settings:
    """Read the settings of the environment. Settings that make no sense end the command with a sentence."""
    from app.settings import SettingsInvalid, get_settings

    try:
        return get_settings()
    except SettingsInvalid as error:
        fail(str(error), ExitCode.BAD_INPUT)


def _unusable_roots(settings: Settings) -> list[str]:
    from app.surroundings import unusable_roots

    return unusable_roots(settings)


def _warn_of(settings: Settings) -> None:
    """Say what of the environment has no effect. It is no error: a folder may be mounted later."""
    from app.surroundings import misspelt_settings

    for sentence in misspelt_settings(os.environ):
        console.note(sentence)
    for sentence in _unusable_roots(settings):
        console.note(f"COPPICE_ALLOWED_ROOTS: {sentence}")


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # from here on clients wait instead of being refused
    except OSError as error:
        fail(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port", ExitCode.BAD_INPUT)
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _end_with(worker: subprocess.Popen[bytes], server: uvicorn.Server) -> None:
    """End the server when the worker ends: without a worker the service would only collect jobs."""
    worker.wait()
    server.should_exit = True


def _stop(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(_WORKER_GRACE_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
