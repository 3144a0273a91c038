"""The worker: Celery's prefork pool with one process a device, which only supervises. Never imports torch.

``python -m worker.main``, or ``coppice worker``.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import structlog
from celery import Celery, signals
from celery.platforms import SecurityWarning

from app.db import Database
from app.installation import EnvironmentShared, check_environment
from app.logs import configure_logging
from app.queue import QUEUE_NAME, consume, create_celery
from app.sandbox.ties import die_with_parent
from app.settings import DataFolderUnusable, Settings, SettingsInvalid, get_settings
from app.storage import create_store
from worker import tasks
from worker.abilities import abilities_of
from worker.child import CHILD_COMMAND
from worker.flag import SharedFlag
from worker.metrics import MetricsServer, WorkerMetrics
from worker.reaper import Reaper
from worker.sandbox.host import SandboxMissing, chosen, examine, require
from worker.signing import BundleSigner

_log = structlog.get_logger(__name__)


def create_worker(settings: Settings, command: Sequence[str] = CHILD_COMMAND) -> Celery:
    """Build the Celery application with its task, and a reaper that lives as long as the worker.

    Args:
        settings: Of the service.
        command: What a job's child process runs.
    """
    celery = create_celery(settings)
    stopping = SharedFlag()  # shared with the pool's process, which is forked later
    abilities = abilities_of(settings)
    consume(celery, abilities.pool)
    tasks.register(celery, settings, stopping.is_set, command, abilities)
    main_process = os.getpid()
    database = Database.of(settings)
    reaper = Reaper(settings, database, create_store(settings), celery, abilities=abilities)

    metrics = MetricsServer(settings, WorkerMetrics(settings, reaper.silent_s))

    def on_ready(**_kwargs: Any) -> None:
        means = chosen(settings, examine())
        _log.info(
            "worker.ready",
            queue=QUEUE_NAME,
            pool=abilities.pool,
            jobs=len(settings.resolved_devices),
            sandbox=means.described(),
        )
        for missing in means.lacks():
            _log.warning("worker.jobs_not_confined", cannot_be_kept_from=missing)
        reaper.start()
        metrics.start()

    def on_shutdown(**_kwargs: Any) -> None:
        _log.info("worker.stopping")
        # A warm shutdown waits for the task, so the supervisor gives its job back and lets the task end.
        stopping.set()
        reaper.stop()

    def on_fork(**_kwargs: Any) -> None:
        # If the main process is gone, nobody would tell this one to stop.
        if not die_with_parent(main_process, signal.SIGKILL):
            os._exit(1)

    def keep_logging(**_kwargs: Any) -> None:
        """Celery leaves logging alone when anybody answers this signal."""

    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_shutdown, weak=False)
    signals.worker_process_init.connect(on_fork, weak=False)
    signals.setup_logging.connect(keep_logging, weak=False)
    return celery


def main(arguments: list[str]) -> None:
    """Run until told to stop; with a pid as argument, also until that parent process is gone."""
    if arguments and not die_with_parent(int(arguments[0]), signal.SIGTERM):
        return
    try:
        check_environment()
        settings = get_settings()
        require(settings, examine())
        BundleSigner(settings).check()
    except OSError as error:
        sys.exit(f"coppice: {DataFolderUnusable(error)}")
    except (EnvironmentShared, SettingsInvalid, SandboxMissing) as error:
        sys.exit(f"coppice: {error}")
    configure_logging(as_json=settings.log_json)
    # Celery warns of unpickling as root, which cannot happen: messages are JSON, and hold an id.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        worker = create_worker(settings)
    except OSError as error:
        sys.exit(f"coppice: {DataFolderUnusable(error)}")
    run(worker, events=settings.worker_events, jobs=len(settings.resolved_devices))


def run(celery: Celery, *, events: bool = False, jobs: int = 1) -> None:
    """Run a worker until it is told to stop.

    Args:
        celery: What `create_worker` built.
        events: Tell monitors that the worker is there.
        jobs: Number of jobs at once, each in a process of the pool that supervises it.
    """
    celery.worker_main(
        [
            "--quiet",  # no banner
            "worker",
            f"--hostname={os.getpid()}@%h",  # several workers may run on one host
            "--pool=prefork",
            f"--concurrency={jobs}",
            "--without-gossip",
            "--without-mingle",
            *(() if events else ("--without-heartbeat",)),
            "--loglevel=WARNING",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
