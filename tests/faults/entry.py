"""The service's processes with faults built in: ``python -m tests.faults.entry worker`` and ``... api PORT``.

They are the product's own API and worker; what is added stands in ``COPPICE_TEST_FAULTS`` (a `Faults` as JSON): a signal that
the process sends to itself at one point, statements that fail at random, a visibility timeout, and `tests.faults.sleeper` as
the jobs' process.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError

VARIABLE = "COPPICE_TEST_FAULTS"


class Faults(BaseModel):
    """What goes wrong."""

    sleeper: bool = False  # jobs are `tests.faults.sleeper`
    point: Literal["", "worker commits", "api before commit", "api after commit"] = ""
    signal: int = signal.SIGKILL
    once: Path | None = None  # this file is made when the point is first reached; then no more
    statement_failures: float = 0  # share of SQL statements that fail
    seed: int = 0
    visibility_timeout_s: float | None = None

    def strike(self) -> None:
        """Send the signal to this process, the first time."""
        if self.once is not None:
            try:
                self.once.touch(exist_ok=False)
            except FileExistsError:
                return
        os.kill(os.getpid(), self.signal)


def install(faults: Faults) -> None:
    """Build the faults into this process and those that it forks."""
    if faults.statement_failures:
        _fail_statements(faults)
    if faults.point == "worker commits":
        from worker.supervisor import Supervisor

        commit = Supervisor._commit

        def trapped(self, statement):
            faults.strike()
            return commit(self, statement)

        Supervisor._commit = trapped
    elif faults.point:
        _trap_submit(faults)


def _fail_statements(faults: Faults) -> None:
    chance = random.Random(faults.seed)
    # Forked processes must not repeat the same numbers.
    os.register_at_fork(after_in_child=lambda: chance.seed(f"{faults.seed}{os.getpid()}"))

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def fail(connection, cursor, statement, parameters, context, executemany) -> None:
        if chance.random() < faults.statement_failures:
            raise OperationalError(statement, parameters, Exception("injected by a test"))


def _trap_submit(faults: Faults) -> None:
    """Strike around the commit of a transaction that has inserted a job."""
    inserted: set[int] = set()

    @sa.event.listens_for(sa.Engine, "after_cursor_execute")
    def note(connection, cursor, statement, parameters, context, executemany) -> None:
        if statement.startswith("INSERT INTO jobs "):
            inserted.add(id(connection.connection.dbapi_connection))

    @sa.event.listens_for(sa.Engine, "commit")
    def before(connection) -> None:
        if faults.point == "api before commit" and id(connection.connection.dbapi_connection) in inserted:
            faults.strike()

    @sa.event.listens_for(sa.pool.Pool, "checkin")
    def after(dbapi_connection, record) -> None:
        if faults.point == "api after commit" and id(dbapi_connection) in inserted:
            faults.strike()


def main(arguments: list[str]) -> None:
    faults = Faults.model_validate_json(os.environ[VARIABLE])
    install(faults)
    if arguments[0] == "api":
        import uvicorn

        uvicorn.run("app.main:create_app", factory=True, port=int(arguments[1]), log_config=None)
        return
    from app.logs import configure_logging
    from app.settings import get_settings
    from worker.child import CHILD_COMMAND
    from worker.main import create_worker, run

    settings = get_settings()
    configure_logging(as_json=settings.log_json)
    if faults.sleeper:
        # A job's process begins in an empty folder, and may read of the code what is installed, or named here.
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = (sys.executable, "-m", "tests.faults.sleeper") if faults.sleeper else CHILD_COMMAND
    celery = create_worker(settings, command)
    if faults.visibility_timeout_s is not None:
        # kombu looks for messages to deliver again every 100 s unless told otherwise.
        short = {
            "visibility_timeout": faults.visibility_timeout_s,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
        celery.conf.broker_transport_options = celery.conf.broker_transport_options | short
        logging.getLogger("celery.worker.strategy").setLevel(logging.INFO)  # which tells of every delivery
    run(celery, jobs=len(settings.resolved_devices))


if __name__ == "__main__":
    main(sys.argv[1:])
