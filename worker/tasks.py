"""The Celery task: a message says that there is work, the database says which."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

import structlog
from billiard.process import current_process
from celery import Celery

from app.db import OUTAGES, Database
from app.jobs.needs import Abilities
from app.logs import first_line
from app.queue import RUN_TASK
from app.settings import Settings
from app.storage import create_store
from app.tracing import create_tracing
from worker.supervisor import Supervisor

_log = structlog.get_logger(__name__)


def register(
    celery: Celery, settings: Settings, stopping: Callable[[], bool], command: Sequence[str], abilities: Abilities | None = None
) -> None:
    """Add the task to a Celery application.

    Args:
        celery: The application.
        settings: Of the service.
        stopping: Says whether the worker is shutting down.
        command: What a job's child process runs.
        abilities: What the worker serves; None: everything.
    """

    def run_jobs(_job_id: str) -> None:
        # Connections are made here, in the pool's process: they must not be made before the fork.
        database = Database.of(settings)
        worker = f"{socket.gethostname()}:{os.getpid()}"
        tracing = create_tracing(settings, "worker")
        supervisor = Supervisor(
            for_one_device(settings, getattr(current_process(), "index", 0)),
            database,
            create_store(settings),
            worker=worker,
            stopping=stopping,
            command=command,
            tracing=tracing,
            abilities=abilities,
        )
        try:
            # Once awake, work until nothing is due: a backlog then needs no message for every job.
            while supervisor.run_next():
                pass
        except OUTAGES as error:
            _log.error("worker.database_unavailable", error=type(error).__name__, reason=first_line(error))
        finally:
            database.close()
            if tracing is not None:
                tracing.close()

    celery.task(name=RUN_TASK)(run_jobs)


def for_one_device(settings: Settings, index: int) -> Settings:
    """Return the settings of one of the pool's processes, which has a device to itself.

    Args:
        settings: Of the worker.
        index: The process's place in the pool. A process that takes another's place has its index.
    """
    devices = settings.resolved_devices
    return settings.model_copy(update={"device": devices[index % len(devices)], "devices": ()})
