"""The one task: a message says that there is work, the database says which."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from celery import Celery

from app.db import Database
from app.queue import RUN_TASK
from app.settings import Settings
from app.storage import create_store
from worker.supervisor import Supervisor


def register(celery: Celery, settings: Settings, stopping: Callable[[], bool]) -> None:
    """Add the task to a Celery application."""

    def run_job(_job_id: str) -> None:
        # Connections are made here, in the pool's process, never before the fork.
        database = Database(settings.resolved_database_url)
        worker = f"{socket.gethostname()}:{os.getpid()}"
        try:
            Supervisor(settings, database, create_store(settings), worker=worker, stopping=stopping).run_next()
        finally:
            database.close()

    celery.task(name=RUN_TASK)(run_job)
