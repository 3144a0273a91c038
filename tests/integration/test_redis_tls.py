"""A Redis with TLS, an authority of its own and a user: a wake-up, what goes wrong, and the servers of the compose files."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.settings import Settings
from coppice.commands.checks import examine
from pruning_core.spec.prune import PruneSpec
from tests.integration.service import Backend, Service
from tests.servers import GuardedRedis, Server, free_port, guarded_redis, wait_until, write_certificates
from tests.tiny import tiny_spec

ROOT = Path(__file__).resolve().parents[2]
# Only the broker wakes workers in the time of a test.
ASLEEP = {"COPPICE_REAPER_TICK_S": "600", "COPPICE_REPUBLISH_AFTER_S": "600", "COPPICE_LEASE_S": "600"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedRedis]:
    with guarded_redis() as server:
        yield server


@pytest.fixture
def spec(tiny_bert: Path, tiny_sst2: Path) -> PruneSpec:
    return tiny_spec(tiny_bert, tiny_sst2)


def _service(guarded: GuardedRedis, url: str, tmp_path: Path, spec: PruneSpec) -> Service:
    backend = Backend("guarded", tmp_path / "data", "", url)
    return Service(backend, tmp_path, Path(spec.model), Path(spec.task.dataset), settings=ASLEEP)


def _logs(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.glob("*.log"))


@pytest.mark.slow
@pytest.mark.long
def test_a_wake_up_goes_from_the_api_to_a_worker_by_tls(guarded: GuardedRedis, tmp_path: Path, spec: PruneSpec) -> None:
    service = _service(guarded, guarded.url(), tmp_path, spec)
    with service.api() as client, service.worker():
        wait_until(lambda: "worker.ready" in _logs(tmp_path), "the worker to listen")
        job = client.submit(spec)
        wait_until(lambda: client.get(job.id).status != "queued", "the worker to be woken")
        client.cancel(job.id)
        client.wait(job.id)
    assert guarded.password not in _logs(tmp_path)


@pytest.mark.slow
@pytest.mark.long
def test_with_a_wrong_password_jobs_are_accepted_and_no_log_has_it(
    guarded: GuardedRedis, tmp_path: Path, spec: PruneSpec
) -> None:
    service = _service(guarded, guarded.url("hunter2hunter2"), tmp_path, spec)
    with service.api() as client, service.worker():
        assert client.submit(spec).status == "queued"
        wait_until(lambda: "queue.publish_failed" in _logs(tmp_path), "the API to have tried")
        wait_until(lambda: _logs(tmp_path).count("invalid username-password pair") > 1, "the worker to have tried")
    assert "hunter2" not in _logs(tmp_path)


@pytest.mark.long
def test_the_doctor_says_what_is_wrong(guarded: GuardedRedis, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = f"redis://coppice:{guarded.password}@127.0.0.1:{guarded.server.port}/0"
    for url, status, advice in (
        (guarded.url(), "ok", ""),
        (guarded.url("hunter2"), "failed", "the user or the password"),
        (guarded.url(ssl_ca_certs=str(guarded.other_ca)), "failed", "the certificate is not of the authority"),
        (guarded.url().partition("?")[0], "failed", "the certificate is not of the authority"),  # the system's
        (guarded.url(ssl_ca_certs=str(tmp_path / "none.crt")), "failed", "is not here"),
        (guarded.url(ssl_cert_reqs="none"), "warning", "take ssl_cert_reqs out"),
        (plain, "failed", "one side speak TLS"),
    ):
        found = next(found for found in examine(Settings(broker_url=url, data_dir=tmp_path)) if found.check == "broker")
        assert found.status == status, found
        assert advice in found.advice, found
        assert "hunter2" not in found.model_dump_json()
    assert "hunter2" not in "".join(capfd.readouterr())


def test_without_options_certificates_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # Celery alone would take any certificate.
    url = Settings(broker_url="rediss://coppice:a%40b@redis:6380/0?ssl_ca_certs=/x/ca.crt").broker_url
    assert url == "rediss://coppice:a%40b@redis:6380/0?ssl_ca_certs=/x/ca.crt&ssl_cert_reqs=required"
    assert Settings(broker_url="rediss://redis:6380/0?ssl_cert_reqs=none").broker_url.endswith("?ssl_cert_reqs=none")
    with pytest.raises(ValueError, match="there are ssl_ca_certs, ssl_cert_reqs"):
        Settings(broker_url="rediss://redis:6380/0?ssl_ca_cert=/x/ca.crt")
    with pytest.raises(ValueError, match="must be one of required"):
        Settings(broker_url="rediss://redis:6380/0?ssl_cert_reqs=no")


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.tls.yml"])
def test_the_servers_of_the_compose_files_run_and_their_checks_see_it(name: str, tmp_path: Path) -> None:
    redis = yaml.safe_load((ROOT / name).read_text())["services"]["redis"]
    port, password = free_port(), "s3cret"
    write_certificates(tmp_path)
    environment = os.environ | {"REDIS_PASSWORD": password, "REDISCLI_AUTH": password}
    # Compose writes one dollar for two. What is another host's there gets a port and a folder of this one.
    script = redis["command"][2].replace("$$", "$").replace("tls-port 6379", f"tls-port {port}")
    listen = "--bind 127.0.0.1" + ("" if "tls-port" in script else f" --port {port}")
    script = script.replace("redis-server -", f"redis-server - {listen} --dir {tmp_path}")
    script = script.replace("/certificates", str(tmp_path))
    program, *arguments = (word.replace("/certificates", str(tmp_path)) for word in redis["healthcheck"]["test"][1:])
    look = [program, "-p", str(port), *arguments]

    def is_well(**changes: str) -> bool:
        return subprocess.run(look, env=environment | changes, capture_output=True, check=False).returncode == 0

    command = ["env", f"REDIS_PASSWORD={password}", *redis["command"][:2], script]
    server = Server(command, tmp_path / "log", signal.SIGTERM, port, is_well)
    server.start()
    try:
        assert not is_well(REDISCLI_AUTH="wrong")
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert not [line for line in listed.splitlines() if line.startswith("redis-server") and password in line]
        admin = [*look[:-1], "config", "get", "dir"]
        told = subprocess.run(admin, env=environment, capture_output=True, text=True, check=False)
        assert "NOPERM" in told.stdout + told.stderr
    finally:
        server.stop()
