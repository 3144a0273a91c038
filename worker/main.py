"""The worker: Celery's prefork pool with one process, which only supervises. Never imports torch.

``python -m worker.main``, or ``coppice worker``.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from celery import Celery, signals

from app.db import Database
from app.logs import configure_logging
from app.queue import QUEUE_NAME, create_celery
from app.settings import Settings, get_settings
from app.storage import create_store
from worker import tasks
from worker.process import SharedFlag, die_with_parent
from worker.reaper import Reaper


def create_worker(settings: Settings) -> Celery:
    """Build the Celery application with its task, and a reaper that lives as long as the worker."""
    celery = create_celery(settings)
    stopping = SharedFlag()  # shared with the pool's process, which is forked later
    tasks.register(celery, settings, stopping.is_set)
    reaper = Reaper(settings, Database(settings.resolved_database_url), create_store(settings), celery)

    def on_ready(**_kwargs: Any) -> None:
        reaper.start()

    def on_shutdown(**_kwargs: Any) -> None:
        # A warm shutdown waits for the task; the supervisor gives its job back so that there is nothing to wait for.
        stopping.set()
        reaper.stop()

    def keep_logging(**_kwargs: Any) -> None:
        """Celery leaves logging alone when anybody answers this signal."""

    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_shutdown, weak=False)
    signals.setup_logging.connect(keep_logging, weak=False)
    return celery


def main(arguments: list[str]) -> None:
    """Run until told to stop; with a pid as argument, also until that parent process is gone."""
    if arguments and not die_with_parent(int(arguments[0]), signal.SIGTERM):
        return
    settings = get_settings()
    configure_logging(as_json=settings.log_json)
    create_worker(settings).worker_main(
        [
            "worker",
            "--pool=prefork",
            "--concurrency=1",
            f"--queues={QUEUE_NAME}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=INFO",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
