"""``coppice doctor`` on the real parts: well, and with each of them broken in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from migrations import downgrade
from tests.integration.service import Backend, Service
from tests.oidc import provider
from tests.servers import free_port, new_bucket, s3_environment

ALL = {
    "versions",
    "database",
    "migrations",
    "secret",
    "workers",
    "broker",
    "store",
    "uploads",
    "scratch",
    "device",
    "sandbox",
    "signing",
    "roots",
    "access",
}


class Patient:
    """One profile's settings, and what the doctor says of them."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.environment = backend.environment() | {"COPPICE_DEVICE": "cpu"}

    def ask(self, *options: str, **changes: str) -> tuple[int, dict[str, Any]]:
        done = self.run("--json", *options, changes=changes)
        assert "Traceback" not in done.stderr
        return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}

    def run(self, *options: str, changes: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "coppice.cli", "doctor", *options]
        environment = self.environment | dict(changes)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def patient(backend: Backend) -> Patient:
    return Patient(backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", pytest.param("redis-postgres", marks=pytest.mark.matrix)], indirect=True)
@pytest.mark.long
def test_a_new_host_is_told_what_to_do_and_then_is_well(patient: Patient, tmp_path: Path) -> None:
    code, found = patient.ask()
    assert code == 3
    first = "database" if patient.backend.name == "local" else "migrations"
    assert (found[first]["status"], found[first]["advice"]) == ("failed", "coppice migrate")
    service = Service(patient.backend, tmp_path)
    code, found = patient.ask()
    assert code == 0, found
    assert set(found) == ALL
    assert found["workers"]["status"] == "warning"
    assert "torch" in found["versions"]["found"]
    assert "computes on cpu" in found["device"]["found"]
    with service.worker():
        assert "0 signed in" not in _until(lambda: patient.ask()[1]["workers"], lambda seen: seen["status"] == "ok")["found"]
    assert not list((patient.backend.data_dir / "artifacts" / "jobs").glob("*")), "the probe is gone"
    with closing(patient.backend.database()) as database:
        downgrade(database, "-1")
    code, found = patient.ask()
    assert (code, found["migrations"]["status"]) == (3, "failed")


@pytest.mark.long
def test_what_is_broken_is_named_with_advice_and_without_passwords(tmp_path: Path) -> None:
    Service(Backend("local", tmp_path / "data", "", ""), tmp_path)
    (tmp_path / "file").write_text("no folder")
    patient = Patient(Backend("local", tmp_path / "data", "", ""))
    dead = free_port()
    cases = {
        "database": {"COPPICE_DATABASE_URL": f"postgresql+psycopg://me:hunter2@127.0.0.1:{dead}/x"},
        "broker": {"COPPICE_BROKER_URL": f"redis://:hunter2@127.0.0.1:{dead}/0"},
        "store": {"COPPICE_ARTIFACTS_DIR": str(tmp_path / "file")},
        "scratch": {"COPPICE_SCRATCH_DIR": str(tmp_path / "file")},
        "device": {"COPPICE_DEVICE": "cuda:7"},
    }
    code, found = patient.ask(**{name: value for case in cases.values() for name, value in case.items()})
    assert code == 3
    for check in cases:
        assert (check, found[check]["status"]) == (check, "failed")
        assert found[check]["advice"]
    assert "hunter2" not in json.dumps(found)


@pytest.mark.long
def test_an_object_store_is_written_and_read(tmp_path: Path, s3_server: int) -> None:
    patient = Patient(Backend("local", tmp_path / "data", "", ""))
    Service(patient.backend, tmp_path)
    url = f"s3://{new_bucket(s3_server)}/prefix"
    _code, found = patient.ask(COPPICE_ARTIFACTS_URL=url, **s3_environment(s3_server))
    assert found["store"]["status"] == "ok", found["store"]
    _code, found = patient.ask(COPPICE_ARTIFACTS_URL="s3://no-such-bucket", **s3_environment(s3_server))
    assert found["store"]["status"] == "failed"


@pytest.mark.long
def test_the_provider_of_sign_ins_is_asked(tmp_path: Path) -> None:
    patient = Patient(Backend("local", tmp_path / "data", "", ""))
    with provider(tmp_path / "provider") as running:
        _code, found = patient.ask(**running.environment())
        assert found["sign-in"]["status"] == "ok"
        assert "answers: 1 keys, with a sign-out of its own; groups have roles for 3 tenants" in found["sign-in"]["found"]
        _code, found = patient.ask(**running.environment(oidc_issuer=f"{running.url}/"))
        assert found["sign-in"]["status"] == "failed"
        assert f"it calls itself {running.url}, and COPPICE_OIDC_ISSUER calls it {running.url}/" in found["sign-in"]["found"]
        running.server.stop()
        _code, found = patient.ask(**running.environment())
        assert found["sign-in"]["status"] == "failed"
        assert "ConnectError" in found["sign-in"]["found"]
        assert "COPPICE_OIDC_ISSUER" in found["sign-in"]["advice"]


@pytest.mark.long
def test_people_get_a_table_and_bad_settings_a_sentence(tmp_path: Path) -> None:
    patient = Patient(Backend("local", tmp_path / "data", "", ""))
    Service(patient.backend, tmp_path)
    shown = patient.run("--strict", changes={"TERM": "dumb"})
    assert shown.returncode == 3, "no worker has signed in"
    assert all(check in shown.stdout for check in ALL)
    refused = patient.run(changes={"COPPICE_PORT": "many"})
    assert refused.returncode == 2
    assert "COPPICE_PORT" in refused.stderr


def _until(look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    for _ in range(10):
        seen = look()
        if good(seen):
            break
    return seen
