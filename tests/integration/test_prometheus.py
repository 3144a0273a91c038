"""A real Prometheus scrapes real processes: alert rules load, and every query of rules and dashboard finds what it names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.integration.service import Backend, Service
from tests.servers import free_port, wait_until
from tests.tiny import tiny_spec

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "coppice.json").read_text())
TOKEN = "t" * 40
GPU = re.compile(r"coppice_worker_gpu_\w+")


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found


def test_each_alert_fires_when_it_should_and_only_then(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", "rules_test.yml"], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = [
        rule["alert"] for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]
    ]
    tried = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    assert [case["alertname"] for case in tried[0]["alert_rule_test"]] == alerts
    assert tried[1]["promql_expr_test"][0]["exp_samples"][0]["value"] == len(alerts)


def test_the_shipped_configuration_is_one(promtool: str, tmp_path: Path) -> None:
    for path in PROMETHEUS.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "metrics-token").write_text(TOKEN)
    done = subprocess.run(
        [promtool, "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", ["redis-postgres", pytest.param("local", marks=pytest.mark.matrix)], indirect=True)
@pytest.mark.long
def test_prometheus_scrapes_two_api_processes_and_a_worker(
    backend: Backend, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    worker_port, second_port = free_port(), free_port()
    settings = {"COPPICE_METRICS_TOKEN": TOKEN, "COPPICE_WORKER_METRICS_PORT": str(worker_port)}
    service = Service(backend, tmp_path, tiny_bert, tiny_sst2, settings=settings)
    uvicorn = ("-m", "uvicorn", "app.main:create_app", "--factory", "--port", str(second_port))
    with ExitStack() as stack:
        client = stack.enter_context(service.running())
        stack.enter_context(service.process("api", *uvicorn))
        job = client.submit(tiny_spec(tiny_bert, tiny_sst2))
        apis = [service.url.removeprefix("http://"), f"127.0.0.1:{second_port}"]
        url = stack.enter_context(_prometheus(tmp_path, apis, f"127.0.0.1:{worker_port}"))
        assert client.wait(job.id).status == "succeeded"
        client.submit(tiny_spec(tiny_bert, tiny_sst2), idempotency_key="again")
        wait_until(lambda: _value(url, 'min(coppice_jobs{status="succeeded"})') == 2, "both jobs to be scraped from both")
        assert _value(url, "count(up == 1)") == 3
        assert _value(url, 'max(coppice_jobs_finished_total{status="succeeded"})') == 2
        assert _value(url, 'min(coppice_job_stage_seconds_count{stage="recover"})') == 2
        assert _value(url, "max(coppice_workers)") == 1
        assert _value(url, "max_over_time(coppice_worker_busy[5m])") == 1
        assert _value(url, "max_over_time(coppice_worker_job_memory_bytes[5m]) > bool 1e8") == 1, "a process with torch"
        assert _value(url, 'sum(coppice_http_requests_total{method="POST",route="/v1/jobs"})') == 2
        rules = httpx2.get(f"{url}/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        assert not [rule["name"] for rule in rules if rule["state"] == "firing"]
        known = set(httpx2.get(f"{url}/api/v1/label/__name__/values").json()["data"])
        for query in _queries():
            assert _ask(url, query) is not None, query
            named = {name for name in re.findall(r"\bcoppice_\w+", query) if not GPU.fullmatch(name)}
            # What has not happened yet has no series.
            assert named - {"coppice_job_failures_total", "coppice_job_requeues_total"} <= known, query


@pytest.mark.slow
@pytest.mark.long
def test_processes_under_one_master_are_counted_together(tmp_path: Path) -> None:
    port, shared = free_port(), tmp_path / "shared"
    shared.mkdir()
    backend = Backend("local", tmp_path / "data", "", "")
    settings = {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
    service = Service(backend, tmp_path, settings=settings)
    uvicorn = ("-m", "uvicorn", "app.main:create_app", "--factory", "--workers", "2", "--port", str(port))
    with service.process("api", *uvicorn):
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), "the API to answer")
        sent = 0

        def both_have_answered() -> bool:
            nonlocal sent
            for _ in range(10):  # each on a connection of its own, which either process may take
                httpx2.get(f"http://127.0.0.1:{port}/v1/methods").raise_for_status()
                sent += 1
            return len(list(shared.glob("counter_*.db"))) == 2

        wait_until(both_have_answered, "both processes to answer")
        text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        pattern = r'^coppice_http_requests_total\{method="GET",route="/v1/methods",status="200"\} (\S+)$'
        assert [float(value) for value in re.findall(pattern, text, re.MULTILINE)] == [sent]


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


@contextmanager
def _prometheus(folder: Path, apis: list[str], worker: str) -> Iterator[str]:
    """Run the shipped configuration with addresses of here, and a shorter interval."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = config["global"]["evaluation_interval"] = "1s"
    config["scrape_configs"][0]["static_configs"] = [{"targets": apis}]
    config["scrape_configs"][1]["static_configs"] = [{"targets": [worker]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "metrics-token").write_text(TOKEN)
    shutil.copy(PROMETHEUS / "rules.yml", folder)
    port = free_port()
    command = [program, f"--config.file={folder}/prometheus.yml", f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--storage.tsdb.path={folder}/tsdb"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(f"{url}/-/ready"), "Prometheus to answer")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _queries() -> list[str]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    rules = [rule["expr"] for group in groups for rule in group["rules"]]
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return rules + [query.replace("$__rate_interval", "1m") for query in panels]


def _ask(url: str, query: str) -> list[Any] | None:
    answer = httpx2.get(f"{url}/api/v1/query", params={"query": query}).json()
    return answer["data"]["result"] if answer["status"] == "success" else None


def _value(url: str, query: str) -> float | None:
    found = _ask(url, query)
    return float(found[0]["value"][1]) if found else None
