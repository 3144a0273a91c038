"""The whole contract under fire: schemathesis against the real service with authentication on, and a client that a public
generator makes of the document. Run by ``make fuzz``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.records import JobError, artifact_key
from app.keys.records import Caller, Scope
from app.keys.service import KeyService
from app.main import create_app
from app.secret import ServerSecret
from app.settings import Settings
from app.storage import LocalArtifactStore, StoredArtifact
from migrations import upgrade
from pruning_core.report.report import Report
from tests.contract.archives import TAR, contents, packed
from tests.servers import free_port, wait_until
from tests.unit.app.sample import REPORT

pytestmark = pytest.mark.fuzz

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "30")
GENERATOR = Path(sys.prefix) / "generator" / "bin"


@dataclass
class Target:
    """A service that listens, and a key that may do everything."""

    url: str
    key: str
    body: dict[str, Any]
    ids: dict[str, list[str]]
    database: Database


@pytest.fixture
def target(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> Iterator[Target]:
    # The limit of requests must not hide failures.
    settings = Settings(
        data_dir=tmp_path / "data",
        allowed_roots=(tiny_bert, tiny_sst2),
        auth=True,
        requests_per_minute=10**6,
        max_queued_jobs=100_000,
    )
    database = Database(settings.resolved_database_url)
    upgrade(database)
    keys = KeyService(database, ServerSecret(settings))
    _key, text = keys.create(owner="acme", name="fuzz", scopes=frozenset(Scope), lives_s=None, caller=Caller())
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=free_port(), log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, "the server to start")
    body = {"model": str(tiny_bert), "task": "glue/sst2", "data": str(tiny_sst2), "sparsity": 0.5}
    target = Target(f"http://127.0.0.1:{server.config.port}", text, body, {}, database)
    target.ids = seed(target, LocalArtifactStore(settings.resolved_artifacts_dir), tmp_path, tiny_bert, tiny_sst2)
    yield target
    server.should_exit = True
    thread.join(60)
    database.close()
    assert not thread.is_alive()


def seed(target: Target, store: LocalArtifactStore, folder: Path, model: Path, data: Path) -> dict[str, list[str]]:
    """Make something of every kind for the fuzzer to find; gives the ids by parameter."""
    file = folder / "model.safetensors"
    file.write_bytes(bytes(1000))
    jobs = [f"seed-{number}" for number in range(6)]
    with httpx2.Client(base_url=target.url, headers={"Authorization": f"Bearer {target.key}"}) as http:
        for job_id in jobs:
            assert http.put(f"/v1/jobs/{job_id}", json=target.body).status_code == 202
        for succeeds in (True, True, False):
            with target.database.write() as connection:
                leases = LeaseRepository(connection)
                claim = leases.claim(worker="test", lease_s=60)
                assert claim is not None
                stored = StoredArtifact(file.name, *store.put(artifact_key(claim.job_id, claim.fence, file.name), file))
                if succeeds:
                    leases.succeed(claim.job_id, claim.fence, report=Report.model_validate(REPORT), artifacts=[stored])
                else:
                    leases.fail(claim.job_id, claim.fence, error=JobError("target_missed", "too coarse"))
        hook = {"url": "https://example.org/hook"}
        return {
            "job_id": jobs,
            "path": [file.name],
            "webhook_id": [http.post("/v1/webhooks", json=hook).json()["id"] for _ in range(3)],
            "key_id": [http.post("/v1/keys", json={"tenant": "other"}).json()["id"] for _ in range(3)],
            "upload_id": [
                http.post(f"/v1/{kind}", content=packed(contents(found)), headers=TAR).json()["id"]
                for kind, found in (("models", model), ("datasets", data))
            ],
        }


# Rules that a schema cannot tell: a cursor must be one that was given, a model must be there, an address public.
_CONFIGURATION = """
hooks = "{hooks}"

[[operations]]
include-operation-id = [
  "listJobs", "listModels", "listDatasets", "createJob", "putJob", "createWebhook", "uploadModel", "uploadDataset"
]
checks.positive_data_acceptance.expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429"]

[parameters]
{bindings}
"""


def configuration(target: Target) -> str:
    """Give the fuzzer's configuration: it tries what is there as well as what it makes up."""
    known = {f"path.{name}": values for name, values in target.ids.items()}
    known |= {f"body.{name}": [value] for name, value in target.body.items()}
    bindings = [f'"{name}" = {{dictionary = "{name.replace(".", "-")}", probability = 0.6}}' for name in known]
    dictionaries = [f"[dictionaries.{name.replace('.', '-')}]\nvalues = {json.dumps(values)}" for name, values in known.items()]
    hooks = Path(__file__).with_name("fuzz_hooks.py")
    return "\n".join([_CONFIGURATION.format(hooks=hooks, bindings="\n".join(bindings)), *dictionaries])


def test_schemathesis_finds_nothing(target: Target, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(configuration(target))
    line = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(tmp_path / "schemathesis.toml")]
    line += ["run", f"{target.url}/openapi.json", "--header", f"Authorization: Bearer {target.key}"]
    line += ["--checks", "all", "--max-examples", EXAMPLES, "--seed", "1", "--request-timeout", "75", "--continue-on-failure"]
    told = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"NO_COLOR": "1"})
    (Path(os.environ["FUZZ_REPORT"]) if "FUZZ_REPORT" in os.environ else tmp_path / "report.txt").write_text(told.stdout)
    assert told.returncode == 0, told.stdout[-20_000:] + told.stderr[-2000:]


def test_a_generated_client_compiles_and_submits_a_job(target: Target, tmp_path: Path) -> None:
    if not (GENERATOR / "openapi-python-client").is_file():
        pytest.skip("openapi-python-client is not installed: make fuzz installs it")
    line = [str(GENERATOR / "openapi-python-client"), "generate", "--url", f"{target.url}/openapi.json", "--meta", "none"]
    made = subprocess.run([*line, "--output-path", "generated"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "will not be generated" not in made.stdout + made.stderr, made.stdout
    program = f"""
from generated import AuthenticatedClient
from generated.api.jobs import create_job, get_job
from generated.models import JobCreate, JobView, ProblemDetails

client = AuthenticatedClient(base_url={target.url!r}, token={target.key!r})
job = create_job.sync(client=client, body=JobCreate.from_dict({target.body!r}))
assert isinstance(job, JobView), job
assert isinstance(get_job.sync(job.id, client=client), JobView)
assert isinstance(get_job.sync("nothing", client=client), ProblemDetails)
print(job.id)
"""
    told = subprocess.run([str(GENERATOR / "python"), "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("job_")
