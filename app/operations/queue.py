"""Pausing, draining and opening the queue: use cases of operators."""

from __future__ import annotations

import structlog

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.jobs.control import Control, ControlRepository, QueueState
from app.keys.records import Caller

_ACTIONS = {
    QueueState.OPEN: Action.QUEUE_RESUMED,
    QueueState.PAUSED: Action.QUEUE_PAUSED,
    QueueState.DRAINING: Action.QUEUE_DRAINED,
}

_log = structlog.get_logger(__name__)


class QueueControl:
    """The queue of the whole service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> Control:
        """Read whether jobs are taken, and how many run and wait."""
        with self._database.read() as connection:
            return ControlRepository(connection).read()

    def is_open(self) -> bool:
        """Return whether jobs are taken."""
        with self._database.read() as connection:
            return ControlRepository(connection).is_open()

    def set(self, state: QueueState, *, caller: Caller) -> Control:
        """Pause, drain or open the queue; asking twice is once. What runs goes on, and what is submitted waits."""
        with self._database.write() as connection:
            control = ControlRepository(connection)
            if control.set(state):
                AuditRepository(connection).record(_ACTIONS[state], caller.owner, caller.key_id, "queue")
                _log.info("queue.changed", state=str(state))
            return control.read()
