"""The very commands of docker-compose.yml, with its environment, against a real Redis and a real PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
import yaml

from coppice import ApiError, Client
from tests.integration.service import answers
from tests.servers import free_port, wait_until
from tests.tiny import tiny_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVICES = yaml.safe_load((Path(__file__).resolve().parents[2] / "docker-compose.yml").read_text())["services"]


def test_migrate_api_and_worker_run_a_job(
    tmp_path: Path, postgres_url: str, redis_url: str, tiny_bert: Path, tiny_sst2: Path
) -> None:
    places = {
        "COPPICE_DATABASE_URL": postgres_url,
        "COPPICE_BROKER_URL": redis_url,
        "COPPICE_ARTIFACTS_DIR": str(tmp_path / "artifacts"),
        "COPPICE_ALLOWED_ROOTS": os.pathsep.join(map(str, (tiny_bert, tiny_sst2))),
        "COPPICE_SECRET": "s" * 64,
        "COPPICE_SECRET_OLD": "",
        "COPPICE_TRUSTED_PROXIES": "",
        "COPPICE_METRICS_TOKEN": "t" * 40,
        "COPPICE_WORKER_METRICS_PORT": str(free_port()),
        "COPPICE_WORKER_EVENTS": "true",
    }
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with _service("migrate", tmp_path, places) as migration:
        assert migration.wait(60) == 0, (tmp_path / "migrate.log").read_text()
    with ExitStack() as stack:
        stack.enter_context(_service("api", tmp_path, places, {"0.0.0.0": "127.0.0.1", "8000": str(port)}))
        stack.enter_context(_service("worker", tmp_path, places))
        flower = stack.enter_context(_flower(tmp_path, redis_url))
        # As an operator would make one: docker compose exec api coppice keys create --tenant me
        making = ["coppice", "keys", "create", "--tenant", "me"]
        made = subprocess.run(making, env=_environment("api", tmp_path, places), capture_output=True, text=True, check=True)
        key = made.stdout.strip()
        with Client(url, retry_for_s=0, api_key=key) as impatient:
            wait_until(lambda: answers(impatient), "the API to answer")
        with Client(url) as nobody, pytest.raises(ApiError, match="API key"):
            nobody.list()
        with Client(url, api_key=key) as client:
            job = client.wait(client.submit(tiny_spec(tiny_bert, tiny_sst2)).id)
            assert job.status == "succeeded", (job.error, (tmp_path / "worker.log").read_text())
            assert client.report(job.id).device == "cpu"
        wait_until(lambda: _tasks_seen_by(flower) == ["task-succeeded"], "Flower to have seen the worker's task")
        for address in (f"{url}/metrics", f"http://127.0.0.1:{places['COPPICE_WORKER_METRICS_PORT']}/metrics"):
            assert httpx2.get(address).status_code == 401
            shown = httpx2.get(address, headers={"Authorization": f"Bearer {places['COPPICE_METRICS_TOKEN']}"})
            assert "coppice_" in shown.raise_for_status().text
        # Its containers share the artifacts and nothing else.
        assert list((tmp_path / "artifacts" / "jobs").iterdir())


@contextmanager
def _flower(folder: Path, redis_url: str) -> Iterator[str]:
    port = free_port()
    words = {
        "--address=0.0.0.0": "--address=127.0.0.1",
        "--port=5555": f"--port={port}",
    }
    with _service("flower", folder, {"CELERY_BROKER_URL": redis_url}, words):
        yield f"http://127.0.0.1:{port}"


def _tasks_seen_by(flower: str) -> list[str]:
    try:
        counts = httpx2.get(f"{flower}/metrics").text
    except httpx2.TransportError:
        return []
    return re.findall(r'flower_events_total\{task="coppice.run_job",type="(task-succeeded)"', counts)


@contextmanager
def _service(
    name: str, folder: Path, places: dict[str, str], words: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service's command as compose would, apart from the places that are another host's there."""
    environment = _environment(name, folder, places)
    command = [(words or {}).get(word, word) for word in SERVICES[name]["command"]]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


# A variable of the operator's that has a default.
_LEFT_OUT = re.compile(r"\$\{\w+:-([^}]*)\}")


def _environment(name: str, folder: Path, places: dict[str, str]) -> dict[str, str]:
    stated = {variable: str(value) for variable, value in SERVICES[name].get("environment", {}).items()}
    assert set(places) <= set(stated)
    declared = {variable: _LEFT_OUT.sub(r"\1", value) for variable, value in stated.items()}  # as compose does
    outside = {variable: value for variable, value in os.environ.items() if not variable.startswith("COPPICE_")}
    environment = outside | {"COPPICE_DATA_DIR": str(folder / f"{name}-data")} | declared | places
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    return environment
