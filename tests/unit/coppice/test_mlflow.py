"""Jobs become MLflow runs: the command against a real service and a real store of MLflow (SQLite)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coppice.client import Client
from pruning_core.report.report import Report
from tests.unit.app.sample import REPORT
from tests.unit.coppice.conftest import FILES, Live

# MLflow's own use of its libraries.
pytestmark = pytest.mark.filterwarnings("ignore")


def _log(live: Live, job_id: str, store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coppice.cli", "mlflow-log", job_id, "--url", live.url, *options]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
    return subprocess.run(command, env=environment, cwd=store, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.long
def test_a_job_is_logged_once_with_its_numbers_and_files(live: Live, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    with Client(live.url) as client:
        body = live.spec.model_dump(mode="json") | {"metadata": {"team": "search"}}
        job_id = client.submit(body).id
        live.succeed()
        first = _log(live, job_id, tmp_path, "--experiment", "nightly")
        assert first.returncode == 0, first.stderr
        again = _log(live, job_id, tmp_path, "--experiment", "nightly")
        assert again.stdout == first.stdout
    tracking = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    run = tracking.get_run(first.stdout.strip())
    assert (run.info.status, run.info.run_name) == ("FINISHED", job_id)
    assert run.data.params["target.sparsity"] == "0.5"
    assert run.data.metrics["speedup"] == REPORT["latency_ms"]["speedup"]
    assert run.data.metrics["pruned.accuracy"] == REPORT["quality"]["pruned"]
    assert run.data.metrics["seconds.load"] == 1
    assert run.data.tags["coppice.metadata.team"] == "search"
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    for name, content in FILES.items():
        assert (artifacts / "bundle" / name).read_bytes() == content
    assert Report.model_validate_json((artifacts / "report.json").read_text()).task == "glue/sst2"


def test_a_job_that_has_not_succeeded_is_refused_and_leaves_no_run(live: Live, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with Client(live.url) as client:
        job_id = client.submit(live.spec).id
        live.fail()
    told = _log(live, job_id, tmp_path)
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "mlflow.db").exists()
