"""The Celery task: a message says that there is work, the database says which."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

import structlog
from celery import Celery

from app.db import OUTAGES, Database
from app.logs import first_line
from app.queue import RUN_TASK
from app.settings import Settings
from app.storage import create_store
from app.tracing import create_tracing
from worker.supervisor import Supervisor

_log = structlog.get_logger(__name__)


def register(celery: Celery, settings: Settings, stopping: Callable[[], bool], command: Sequence[str]) -> None:
    """Add the task to a Celery application.

    Args:
        celery: The application.
        settings: Of the service.
        stopping: Says whether the worker is shutting down.
        command: What a job's child process runs.
    """

    def run_jobs(_job_id: str) -> None:
        # Connections are made here, in the pool's process: they must not be made before the fork.
        database = Database(settings.resolved_database_url)
        worker = f"{socket.gethostname()}:{os.getpid()}"
        tracing = create_tracing(settings, "worker")
        supervisor = Supervisor(
            settings, database, create_store(settings), worker=worker, stopping=stopping, command=command, tracing=tracing
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
