"""What earlier releases have left: each folder of ``fixtures`` is one of them, and none is ever edited."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.service import Backend
from tests.upgrade.product import Database

Body = dict[str, Any]

_FIXTURES = Path(__file__).with_name("fixtures")
# What depends on the moment at which it is asked for.
_PASSING = frozenset({"estimated_finish"})


@dataclass(frozen=True)
class Generation:
    """The fixtures that one release has made; see ``make``."""

    folder: Path

    def read(self, name: str) -> Any:
        """Read one of its documents."""
        return json.loads((self.folder / name).read_text())

    def specs(self) -> dict[str, tuple[Body, Body]]:
        """Give every spec by name: as it was written, and as that release understood it."""
        meant = self.read("meant.json")
        return {path.stem: (self.read(f"specs/{path.name}"), meant[path.stem]) for path in self.folder.glob("specs/*.json")}

    def unpack(self, name: str, folder: Path) -> Path:
        """Unpack one of its archives into a folder."""
        with tarfile.open(self.folder / name) as archive:
            archive.extractall(folder, filter="data")
        return folder

    def checkpoints(self, folder: Path) -> list[Body]:
        """Unpack the bundles into a folder, and give the checkpoints in them."""
        self.unpack("bundles.tar.gz", folder)
        text = (folder / "made.json").read_text()
        return json.loads(text.replace(json.loads(text)["root"], str(folder)))["checkpoints"]

    def restore_local(self, folder: Path, receiver: str = "") -> OldState:
        """Lay out the state of the embedded profile in a folder of this test's.

        The database names uploads by the absolute path of their folder, and no setting changes that: whoever moves a data
        folder has to do what is done here.

        Args:
            folder: Where to.
            receiver: Where the old webhook leads now; where it led, if that is empty.
        """
        self.unpack("state.tar.gz", folder)
        text = (folder / "record.json").read_text()
        record, data = json.loads(text), folder / "coppice-data"
        moved = {record["root"]: str(data), record["webhook"]["url"]: receiver or record["webhook"]["url"]}
        _rewrite(data / "coppice.db", moved)
        return OldState(Backend("local", data, "", ""), json.loads(_moved(text, moved)))

    def restore_production(self, folder: Path, database_url: str) -> OldState:
        """Restore the dump of the PostgreSQL database into an empty one. Its artifacts were left behind."""
        import psycopg

        self.unpack("postgresql.tar.gz", folder)
        text, dump = (folder / "record.json").read_text(), (folder / "dump.sql").read_text()
        moved = {json.loads(text)["root"]: str(folder / "coppice-data")}
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            connection.execute(_moved(dump, moved).encode())
        return OldState(Backend("postgresql", folder / "coppice-data", database_url, ""), json.loads(_moved(text, moved)))


@dataclass(frozen=True)
class OldState:
    """The state of a service of an earlier release, and what that release said of it."""

    backend: Backend
    record: Body

    @property
    def settings(self) -> dict[str, str]:
        """Give the settings that belong to the state. Idempotency keys are kept, however old the fixtures have become."""
        return {
            "COPPICE_IDEMPOTENCY_KEEP_S": "1e10",
            "COPPICE_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "COPPICE_WEBHOOK_POLL_S": "0.2",
            **self.record.get("secret", {}),
        }

    def headers(self, who: str) -> dict[str, str]:
        """Show the key of a caller."""
        return {"Authorization": f"Bearer {self.record['keys'][who]['key']}"} if who else {}

    def database(self) -> Database:
        """Open the database, as it is."""
        return self.backend.database()


GENERATIONS = tuple(Generation(folder) for folder in sorted(_FIXTURES.iterdir()) if folder.is_dir())
assert GENERATIONS
every_generation = pytest.mark.parametrize("old", GENERATIONS, ids=lambda generation: generation.folder.name)


def differences(now: Any, before: Any, path: str = "") -> list[str]:
    """Say what an answer has lost: fields may be added, but none may go, and none may say something else."""
    if isinstance(before, dict) and isinstance(now, dict):
        kept = [(name, value) for name, value in before.items() if name not in _PASSING]
        return [
            found
            for name, value in kept
            for found in (differences(now[name], value, f"{path}.{name}") if name in now else [f"{path}.{name} is gone"])
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(now, before, strict=True))
        return [found for index, (one, other) in pairs for found in differences(one, other, f"{path}[{index}]")]
    return [] if now == before and type(now) is type(before) else [f"{path} is {now!r}, was {before!r}"]


def _moved(text: str, moved: Mapping[str, str]) -> str:
    for old, new in moved.items():
        text = text.replace(old, new)
    return text


def _rewrite(database: Path, moved: Mapping[str, str]) -> None:
    """Replace texts in every column of every row."""
    connection = sqlite3.connect(database)
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            for old, new in moved.items():
                statement = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'
                connection.execute(statement, (old, new, old))
    connection.commit()
    connection.close()
