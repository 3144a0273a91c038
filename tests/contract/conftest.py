"""The real application on a real SQLite file and a real folder store; only the worker is played by the test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.records import JobError, artifact_key
from app.main import create_app
from app.settings import Settings
from app.storage import LocalArtifactStore, StoredArtifact
from migrations import upgrade
from pruning_core.report import Report
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

    def succeed(self) -> str:
        """Finish the next job with files, as a worker would."""
        job_id, fence = self.claim()
        stored = []
        for name, content in FILES.items():
            path = self.scratch / "file"
            path.write_bytes(content)
            stored.append(StoredArtifact(name, *self.store.put(artifact_key(job_id, fence, name), path)))
        with self.database.write() as connection:
            report = Report.model_validate(REPORT)
            assert LeaseRepository(connection).succeed(job_id, fence, report=report, artifacts=stored)
        return job_id

    def fail(self, error: JobError) -> str:
        job_id, fence = self.claim()
        with self.database.write() as connection:
            assert LeaseRepository(connection).fail(job_id, fence, error=error)
        return job_id


@pytest.fixture
def api(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> Iterator[Api]:
    settings = Settings(data_dir=tmp_path / "data", allowed_roots=(tiny_bert.parent, tiny_sst2.parent))
    database = Database(settings.resolved_database_url)
    upgrade(database)
    body = {"model": str(tiny_bert), "task": "glue/sst2", "data": str(tiny_sst2), "sparsity": 0.5}
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield Api(client, database, LocalArtifactStore(settings.resolved_artifacts_dir), body, tmp_path)
    database.close()
