"""The real application behind a real socket, without a worker: the test plays it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.records import Claim, JobError, artifact_key
from app.keys.records import Caller, Scope
from app.keys.service import KeyService
from app.main import create_app
from app.secret import ServerSecret
from app.settings import Settings
from app.storage import LocalArtifactStore, StoredArtifact
from migrations import upgrade
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec
from tests.servers import free_port, wait_until
from tests.tiny import tiny_spec
from tests.unit.app.sample import REPORT

FILES = {"model.safetensors": random.Random(0).randbytes(300_000), "1_Pooling/config.json": b"{}", "empty.txt": b""}


@dataclass
class Live:
    """A service that listens, and the means of a worker."""

    url: str
    spec: PruneSpec
    database: Database
    store: LocalArtifactStore
    scratch: Path
    keys: KeyService

    def key(self, tenant: str = "acme", *scopes: Scope) -> str:
        wanted = frozenset(scopes or (Scope.JOBS_READ, Scope.JOBS_WRITE))
        return self.keys.create(owner=tenant, name="", scopes=wanted, lives_s=None, caller=Caller())[1]

    def claim(self) -> Claim:
        """Take the due job; wait for one."""
        claims: list[Claim] = []

        def look() -> bool:
            with self.database.write() as connection:
                claim = LeaseRepository(connection).claim(worker="test", lease_s=60)
            claims.extend([claim] if claim is not None else [])
            return bool(claims)

        wait_until(look, "a job to be submitted")
        return claims[0]

    def succeed(self) -> None:
        claim = self.claim()
        stored = []
        for name, content in FILES.items():
            path = self.scratch / "file"
            path.write_bytes(content)
            stored.append(StoredArtifact(name, *self.store.put(artifact_key(claim.job_id, claim.fence, name), path)))
        with self.database.write() as connection:
            report = Report.model_validate(REPORT)
            assert LeaseRepository(connection).succeed(claim.job_id, claim.fence, report=report, artifacts=stored)

    def fail(self) -> None:
        claim = self.claim()
        with self.database.write() as connection:
            error = JobError("target_missed", "units of this model are too coarse", "target")
            assert LeaseRepository(connection).fail(claim.job_id, claim.fence, error=error)

    def confirm_cancelled(self, claim: Claim) -> None:
        with self.database.write() as connection:
            assert LeaseRepository(connection).confirm_cancelled(claim.job_id, claim.fence)


@pytest.fixture
def live(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> Iterator[Live]:
    yield from serve(
        Settings(data_dir=tmp_path / "data", allowed_roots=(tiny_bert, tiny_sst2)), tmp_path, tiny_spec(tiny_bert, tiny_sst2)
    )


@pytest.fixture
def guarded(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> Iterator[Live]:
    """The same, with authentication; `Live.key` makes keys."""
    settings = Settings(data_dir=tmp_path / "data", allowed_roots=(tiny_bert, tiny_sst2), auth=True)
    yield from serve(settings, tmp_path, tiny_spec(tiny_bert, tiny_sst2))


def serve(settings: Settings, folder: Path, spec: PruneSpec) -> Iterator[Live]:
    database = Database(settings.resolved_database_url)
    upgrade(database)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, "the server to start")
    store = LocalArtifactStore(settings.resolved_artifacts_dir)
    yield Live(f"http://127.0.0.1:{port}", spec, database, store, folder, KeyService(database, ServerSecret(settings)))
    server.should_exit = True
    thread.join(30)
    database.close()
    assert not thread.is_alive()
