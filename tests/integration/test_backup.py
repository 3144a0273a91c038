"""The guide's own commands: backed up under load, restored elsewhere, and everything is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guides import block
from tests.integration.service import Backend, Service, sha256
from tests.servers import new_database
from tests.tiny import tiny_spec


def _run(name: str, environment: dict[str, str]) -> str:
    path = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    script = block("operations.md", "sh", name)
    done = subprocess.run(
        ["sh", "-eu", "-c", script], env=environment | {"PATH": path}, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("profile", [pytest.param("local", marks=pytest.mark.long), "production"])
def test_what_was_backed_up_is_there_again(
    profile: str, request: pytest.FixtureRequest, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    old, new = (_backend(profile, request, tmp_path / name) for name in ("old", "new"))
    service = Service(old, tmp_path, tiny_bert, tiny_sst2)
    with service.running() as client:
        job = client.wait(client.submit(tiny_spec(tiny_bert, tiny_sst2)).id)
        assert job.status == "succeeded"
        report = client.report(job.id)
        _run(f"backup-{profile}", _environment(old, tmp_path))
    assert "failed" not in _run(f"restore-{profile}", _environment(new, tmp_path))
    with Service(new, tmp_path, tiny_bert, tiny_sst2).api() as client:
        assert client.report(job.id) == report
        bundle = client.download(job.id, tmp_path / "bundle")
        assert {item.path: item.sha256 for item in job.artifacts} == {
            str(path.relative_to(bundle)): sha256(path) for path in bundle.rglob("*") if path.is_file()
        }


def _backend(profile: str, request: pytest.FixtureRequest, folder: Path) -> Backend:
    if profile == "local":
        return Backend("local", folder, "", "")
    return Backend("postgresql", folder, new_database(request.getfixturevalue("postgres_server")), "")


def _environment(backend: Backend, folder: Path) -> dict[str, str]:
    return backend.environment() | {
        "BACKUP": str(folder / "backup"),
        "COPPICE_ARTIFACTS_DIR": str(backend.data_dir / "artifacts"),
        "COPPICE_DEVICE": "cpu",
        "PGURL": backend.database_url.replace("+psycopg", ""),
    }
