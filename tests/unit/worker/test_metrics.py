"""A worker's own /metrics, over real HTTP."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx2
import pynvml
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from worker.metrics import MetricsServer, WorkerMetrics


def _serve(folder: Path, **changes: object) -> tuple[MetricsServer, int]:
    settings = Settings.model_validate({"data_dir": folder, "worker_metrics_port": 0} | changes)
    server = MetricsServer(settings, WorkerMetrics(settings, lambda: 1.5))
    port = server.start()
    assert port is not None
    return server, port


def test_a_worker_tells_of_itself(tmp_path: Path) -> None:
    _server, port = _serve(tmp_path)
    families = {family.name: family for family in text_string_to_metric_families(httpx2.get(f"http://127.0.0.1:{port}/").text)}
    values = {name: family.samples[0].value for name, family in families.items()}
    assert values["coppice_worker_scratch_free_bytes"] > 0
    assert values["coppice_worker_reaper_silent_seconds"] == 1.5
    assert "process_resident_memory_bytes" in values


def test_with_a_token_it_is_asked_for(tmp_path: Path) -> None:
    _server, port = _serve(tmp_path, metrics_token="t" * 32)
    url = f"http://127.0.0.1:{port}/metrics"
    assert httpx2.get(url).status_code == 401
    assert httpx2.get(url, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx2.get(url, headers={"Authorization": f"Bearer {'t' * 32}"}).status_code == 200


def test_a_port_that_is_taken_costs_metrics_and_nothing_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(data_dir=tmp_path, worker_metrics_port=taken.getsockname()[1])
        assert MetricsServer(settings, WorkerMetrics(settings, lambda: 0.0)).start() is None


def test_without_a_port_nothing_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COPPICE_WORKER_METRICS_PORT", raising=False)
    settings = Settings(data_dir=tmp_path)
    assert MetricsServer(settings, WorkerMetrics(settings, lambda: 0.0)).start() is None


def test_gpu_memory_is_told_where_there_is_a_gpu(tmp_path: Path) -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        pytest.skip("no NVIDIA driver here")
    _server, port = _serve(tmp_path)
    found = {
        family.name: family.samples for family in text_string_to_metric_families(httpx2.get(f"http://127.0.0.1:{port}/").text)
    }
    assert len(found["coppice_worker_gpu_memory_bytes"]) == pynvml.nvmlDeviceGetCount()
    for used, total in zip(
        found["coppice_worker_gpu_memory_used_bytes"], found["coppice_worker_gpu_memory_bytes"], strict=True
    ):
        assert 0 <= used.value <= total.value
        assert used.labels == total.labels
