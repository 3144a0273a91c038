"""The real application on a real database and a real folder store; only the worker is played by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from app.db import Database
from app.inspection.process import Zygote
from app.jobs.leases import LeaseRepository
from app.jobs.records import JobError, artifact_key
from app.main import create_app
from app.settings import Settings
from app.storage import LocalArtifactStore, StoredArtifact
from migrations import upgrade
from pruning_core.report.report import Report
from tests.contract.archives import contents
from tests.unit.app.sample import REPORT

FILES = {"model.safetensors": bytes(range(256)) * 40, "1_Pooling/config.json": b"{}", "empty.txt": b""}


@dataclass
class Api:
    """An application and the means of a worker."""

    client: TestClient
    database: Database
    store: LocalArtifactStore
    body: dict[str, Any]
    scratch: Path

    def submit(self, **changes: Any) -> str:
        response = self.client.post("/v1/jobs", json=self.body | changes)
        assert response.status_code == 202, response.text
        return response.json()["id"]

    def claim(self) -> tuple[str, int]:
        with self.database.write() as connection:
            claim = LeaseRepository(connection).claim(worker="test", lease_s=60)
        assert claim is not None
        return claim.job_id, claim.fence

    def succeed(self, keep_s: float | None = None) -> str:
        """Finish the next job with files, as a worker would."""
        job_id, fence = self.claim()
        stored = self._store(job_id, fence)
        with self.database.write() as connection:
            report = Report.model_validate(REPORT)
            assert LeaseRepository(connection).succeed(job_id, fence, report=report, artifacts=stored, keep_s=keep_s)
        return job_id

    def fail(self, error: JobError, *, with_files: bool = False) -> str:
        job_id, fence = self.claim()
        stored = self._store(job_id, fence) if with_files else []
        report = Report.model_validate(REPORT) if with_files else None
        with self.database.write() as connection:
            assert LeaseRepository(connection).fail(job_id, fence, error=error, report=report, artifacts=stored)
        return job_id

    def take_the_database_away(self) -> None:
        self.database.close()
        if self.database.is_sqlite:
            for path in self.scratch.glob("data/coppice.db*"):
                path.unlink()
            (self.scratch / "data" / "coppice.db").mkdir()
            self.client.app.state.database.close()
        else:
            # The application's pooled sessions are ended under it, and new ones are refused.
            url, name = self.database.url.set(database="postgres"), self.database.url.database
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
                connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            engine.dispose()

    def _store(self, job_id: str, fence: int) -> list[StoredArtifact]:
        stored = []
        for name, content in FILES.items():
            path = self.scratch / "file"
            path.write_bytes(content)
            stored.append(StoredArtifact(name, *self.store.put(artifact_key(job_id, fence, name), path)))
        return stored


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """One process to fork inspections from, for all applications of the tests: each has its own otherwise."""
    own = Zygote()
    yield own
    own.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def api(request: pytest.FixtureRequest, make_api: Callable[..., Api]) -> Api:
    return make_api("" if request.param == "sqlite" else request.getfixturevalue("postgres_url"))


@pytest.fixture
def api_on_sqlite(make_api: Callable[..., Api]) -> Api:
    """For what has nothing to do with the database, or cannot be done to PostgreSQL."""
    return make_api("")


@pytest.fixture
def make_api(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path, zygote: Zygote) -> Iterator[Callable[..., Api]]:
    with ExitStack() as stack:

        def make(database_url: str, **changes: Any) -> Api:
            given = {"allowed_roots": (tiny_bert.parent, tiny_sst2.parent)} | changes
            settings = Settings(data_dir=tmp_path / "data", database_url=database_url, **given)
            database = Database(settings.resolved_database_url)
            stack.callback(database.close)
            upgrade(database)
            client = stack.enter_context(TestClient(create_app(settings, zygote), raise_server_exceptions=False))
            body = {"model": str(tiny_bert), "task": "glue/sst2", "data": str(tiny_sst2), "sparsity": 0.5}
            return Api(client, database, LocalArtifactStore(settings.resolved_artifacts_dir), body, tmp_path)

        yield make


@pytest.fixture
def model(tiny_bert: Path) -> dict[str, bytes]:
    return contents(tiny_bert)


def drafts(api: Api) -> list[Path]:
    incoming = api.client.app.state.settings.resolved_uploads_dir / ".incoming"
    return list(incoming.iterdir()) if incoming.is_dir() else []
