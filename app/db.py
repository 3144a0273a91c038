"""Connections and transactions: SQLite for the local profile, PostgreSQL for production, one interface.

All times in the database are seconds since the epoch by the database's own clock (`now`): processes on several hosts never
compare their clocks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, assert_never, cast, get_args

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from app.settings import Settings

# The database is down, restarting, or has no connection to spare: the same request may succeed later.
OUTAGES = (OperationalError, InterfaceError, PoolTimeout)

# All tables of the service; each concept's models.py declares its own.
metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Dialect = Literal["sqlite", "postgresql"]

_POOL_SIZE = 20
_OVERFLOW = 10  # further connections of a busy process, where nobody has said how many it may have
_POOL_PATIENCE_S = 5
_SQLITE_BUSY_TIMEOUT_MS = 10_000
# Limits after which a stopped process or a host that is cut off loses its locks, and no longer holds us up. And no compiler of
# queries: it takes half a second for statements that take milliseconds.
_POSTGRESQL = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "options": "-c jit=off -c idle_in_transaction_session_timeout=15s -c lock_timeout=10s",
}
# Options of a session would stay on a connection that others get next, and prepared statements be on another: the database's
# user has them instead (docs/guides/scaling.md).
_BY_POOLER = {name: value for name, value in _POSTGRESQL.items() if name != "options"} | {"prepare_threshold": None}


class now(FunctionElement[float]):  # noqa: N801 - it stands in SQL expressions like any function
    """The database's clock, in seconds since the epoch; moves within a transaction."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: object, **_kwargs: object) -> str:
    # unixepoch('subsec') needs SQLite 3.42; Debian 12 has 3.40.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: object, **_kwargs: object) -> str:
    return "extract(epoch from clock_timestamp())::float8"


class Written(str):
    """A JSON document that is written already; goes into a column of JSON as it is."""

    __slots__ = ()


_FEWEST_TO_LISTEN = 2


class Database:
    """A pool of connections.

    Args:
        url: SQLAlchemy URL; ``sqlite+pysqlite:///file`` or ``postgresql+psycopg://...``.
        connections: Most connections of this process to PostgreSQL, the one on which it may listen for changes among them;
            None: the default.
        pooler: Whether PgBouncer stands between, in transaction mode.
    """

    def __init__(self, url: str, *, connections: int | None = None, pooler: bool = False) -> None:
        self.url = sa.make_url(url)
        dialect = _known_dialect(self.url.get_backend_name())
        self.is_sqlite = dialect == "sqlite"
        # Nothing is heard through a pooler of transactions, and where there are two connections both are needed for those.
        self.can_listen = not (self.is_sqlite or pooler) and (connections is None or connections > _FEWEST_TO_LISTEN)
        self._writer = threading.Lock()
        match dialect:
            case "sqlite":
                Path(self.url.database or "").parent.mkdir(parents=True, exist_ok=True)
                self.engine = sa.create_engine(
                    self.url,
                    pool_size=_POOL_SIZE,
                    pool_timeout=_POOL_PATIENCE_S,
                    connect_args={"timeout": 10},
                    json_serializer=_as_json,
                )
                event.listen(self.engine, "connect", _configure_sqlite)
                event.listen(self.engine, "begin", _begin_sqlite)
            case "postgresql":
                pooled = None if connections is None else connections - self.can_listen
                self.engine = sa.create_engine(
                    self.url,
                    pool_size=pooled or _POOL_SIZE,
                    max_overflow=_OVERFLOW if connections is None else 0,
                    pool_timeout=_POOL_PATIENCE_S,
                    pool_pre_ping=True,
                    connect_args=_BY_POOLER if pooler else _POSTGRESQL,
                    json_serializer=_as_json,
                )
            case _:
                assert_never(dialect)

    @classmethod
    def of(cls, settings: Settings) -> Database:
        """Open the database that the settings name."""
        return cls(settings.resolved_database_url, connections=settings.connections_a_process, pooler=settings.database_pooler)

    @contextmanager
    def write(self) -> Generator[sa.Connection]:
        """Open one transaction that may write; commits at the end, rolls back on an exception."""
        with self._turn(), self.engine.connect().execution_options(coppice_write=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def _turn(self) -> Generator[None]:
        """Make the writers of this process take turns on SQLite, whose own waiting is by chance and starves some of them."""
        if not self.is_sqlite:
            yield
            return
        if not self._writer.acquire(timeout=_SQLITE_BUSY_TIMEOUT_MS / 1000):
            raise PoolTimeout("the database was busy for too long")
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def read(self) -> Generator[sa.Connection]:
        """Open one transaction for reading: a consistent view."""
        with self.engine.connect() as connection:
            if not self.is_sqlite:  # SQLite reads from one snapshot anyway
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    def room_for(self, connections: int) -> str | None:
        """Return what is wrong where PostgreSQL takes fewer connections than the service may want; None: nothing."""
        if self.is_sqlite:
            return None
        with self.read() as connection:
            wanted = ("max_connections", "superuser_reserved_connections")
            most, reserved = (int(str(connection.scalar(sa.text(f"SHOW {name}")))) for name in wanted)
        if connections <= most - reserved:
            return None
        return (
            f"the service may want {connections} connections, and PostgreSQL gives {most - reserved} (max_connections less the "
            "reserved ones): lower COPPICE_DATABASE_CONNECTIONS, raise max_connections, or put PgBouncer between"
        )

    def check(self) -> None:
        """Check that the database answers. Raise SQLAlchemy's error where it does not."""
        with self.read() as connection:
            connection.execute(sa.select(sa.literal(1)))

    @property
    def driver_error(self) -> type[Exception]:
        """The base of the driver's own errors, for who uses one of its connections without SQLAlchemy."""
        driver = self.engine.dialect.dbapi
        assert driver is not None, "the engine has loaded it"
        return driver.Error

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()


def dialect_of(connection: sa.Connection) -> Dialect:
    """Name the kind of database behind a connection."""
    return _known_dialect(connection.dialect.name)


def take_turns(connection: sa.Connection, lock: int, name: str | None = None) -> None:
    """Wait until nobody else holds a lock, and hold it until the transaction ends.

    Args:
        connection: A write transaction.
        lock: Number of the lock, the same in every process.
        name: Whose turn it is; None: everybody's.
    """
    dialect = dialect_of(connection)
    match dialect:
        case "sqlite":  # its writers take turns anyway
            return
        case "postgresql":
            key = (lock,) if name is None else (lock, sa.func.hashtext(name))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(*key)))
        case _:
            assert_never(dialect)


def _as_json(value: object) -> str:
    return value if isinstance(value, Written) else json.dumps(value)


def _known_dialect(name: str) -> Dialect:
    if name not in get_args(Dialect):
        raise ValueError(f"the service keeps its jobs in SQLite or PostgreSQL, not in {name}")
    return cast("Dialect", name)


def _configure_sqlite(dbapi_connection: Any, _record: object) -> None:
    # The driver starts a transaction only at the first write, and so loses read-then-write updates; we begin it ourselves.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("coppice_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
