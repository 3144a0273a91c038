"""The snippets of docs/guides/pipelines.md, run as they stand against a real service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from coppice import Client
from tests.guides import block
from tests.integration.service import Backend, Service

PREFECT = Path(sys.prefix) / "prefect" / "bin" / "python"
AIRFLOW = Path(sys.prefix) / "airflow" / "bin" / "airflow"


@contextmanager
def _service(folder: Path, *roots: Path) -> Iterator[tuple[str, Client]]:
    folder.mkdir()
    service = Service(Backend("local", folder / "data", "", ""), folder, *roots)
    with service.running() as client:
        yield service.url, client


def _environment(folder: Path, **changes: str) -> dict[str, str]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return os.environ | {"PATH": path, "HOME": str(folder)} | changes


def _sh(script: str, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    # As GitHub runs a step.
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    environment = _environment(folder, **changes)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_steps_of_the_workflow_and_the_line_for_mlflow(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    workflow = yaml.safe_load(block("pipelines.md", "yaml", "github"))
    steps = {step.get("name"): step["run"] for step in workflow["jobs"]["prune"]["steps"] if "run" in step}
    (tmp_path / "model").symlink_to(tiny_bert)
    (tmp_path / "data").mkdir(exist_ok=True)
    for path in tiny_sst2.iterdir():
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    with _service(tmp_path / "service") as (url, client):
        here = {"COPPICE_URL": url, "GITHUB_SHA": "abc123", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
        lenient = steps["Prune"].replace("drop>0.01", "drop>0.99")  # the model is a random one
        for _twice in range(2):  # a step that is repeated submits nothing new
            done = _sh(lenient, tmp_path, **here)
            assert done.returncode == 0, done.stderr
        assert [job.id for job in client.list()] == ["prune-abc123"]
        assert json.loads((tmp_path / "report.json").read_text())["report"]["macs"]
        assert (tmp_path / "bundle" / "model.safetensors").is_file()
        assert _sh(steps["Summary"], tmp_path, **here).returncode == 0
        assert "latency" in (tmp_path / "summary.md").read_text()
        strict = _sh(steps["Prune"].replace("drop>0.01", "speedup>0"), tmp_path, **here)
        assert strict.returncode == 4, strict.stderr
        tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
        logged = _sh(block("pipelines.md", "sh", "mlflow"), tmp_path, JOB="prune-abc123", **tracking, **here)
        assert logged.returncode == 0, logged.stderr
        run_id = logged.stdout.strip()
        assert list(tmp_path.glob(f"**/{run_id}/artifacts/report.html"))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_prefect_flow(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    if not PREFECT.is_file():
        pytest.skip("Prefect has an environment of its own: make pipelines")
    call = f"\nprint('speedup', nightly(URL, {str(tiny_bert)!r}, {str(tiny_sst2)!r}, '7'))\n"
    with _service(tmp_path / "service", tiny_bert, tiny_sst2) as (url, client):
        (tmp_path / "flow.py").write_text(f"URL = {url!r}\n" + block("pipelines.md", "python", "prefect") + call)
        environment = _environment(tmp_path, PREFECT_HOME=str(tmp_path / "prefect"), DO_NOT_TRACK="1")
        done = subprocess.run(
            [PREFECT, "flow.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "speedup" in done.stdout
        assert client.get("prefect-7").status == "succeeded"
    assert (tmp_path / "bundles" / "7" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_airflow_dag(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    written = block("pipelines.md", "python", "airflow")
    compile(written, "dag.py", "exec")
    if not AIRFLOW.is_file():
        pytest.skip("Airflow has an environment of its own: make pipelines")
    with _service(tmp_path / "service", tiny_bert, tiny_sst2) as (url, client):
        here = {
            "http://coppice.example.org": url,
            '"/models/minilm"': repr(str(tiny_bert)),
            '"/data/sst2"': repr(str(tiny_sst2)),
            '"/models/pruned"': repr(str(tmp_path / "pruned")),
            "poke_interval=60": "poke_interval=1",
        }
        for stands, meant in here.items():
            assert stands in written
            written = written.replace(stands, meant)
        (tmp_path / "dags").mkdir()
        (tmp_path / "dags" / "prune.py").write_text(written)
        environment = _environment(
            tmp_path,
            AIRFLOW_HOME=str(tmp_path / "airflow"),
            AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path / "dags"),
            AIRFLOW__CORE__LOAD_EXAMPLES="false",
        )
        for arguments in (["db", "migrate"], ["dags", "test", "prune_nightly", "2026-01-01"]):
            done = subprocess.run(
                [AIRFLOW, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=240
            )
            assert done.returncode == 0, done.stdout + done.stderr
        job = client.get("airflow-2026-01-01")
        assert job.status == "succeeded"
    assert (tmp_path / "pruned" / "airflow-2026-01-01" / "model.safetensors").is_file()
