"""The state of a service that has been used: jobs in every status, uploads, keys, a webhook, and what it answers of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
import psutil

from coppice import Client
from tests.integration.service import Backend, Service, child_of
from tests.servers import wait_until
from tests.upgrade.making.specs import HALF, SMALL, SPECS, task_of

Body = dict[str, Any]

NOBODY_LISTENS = "http://127.0.0.1:9/hook"  # the port named discard: messages wait in the outbox
PRIVATE = {"COPPICE_WEBHOOK_NETWORKS": "127.0.0.0/8", "COPPICE_WEBHOOK_POLL_S": "0.2"}
# What a folder may hold to be uploaded as a model: not a bundle's loader, nor its page.
_UPLOADED = (".json", ".safetensors")


@dataclass
class Maker:
    """A service of the commit that the fixtures are made from, and what is written down about its state.

    Attributes:
        backend: Where the state is.
        folder: For logs.
        secret: COPPICE_SECRET, where the profile does not keep one in its data folder.
        record: What the tests need to know: ids, keys, secrets, requests with the jobs that they made, answers.
    """

    backend: Backend
    folder: Path
    secret: Mapping[str, str]
    record: Body = field(default_factory=lambda: {"keys": {}, "jobs": {}, "requests": [], "answers": []})

    @contextmanager
    def api(self, **settings: str) -> Iterator[tuple[Service, Client]]:
        """Run the API; a worker can be run beside it."""
        service = Service(self.backend, self.folder, settings={**PRIVATE, **self.secret, **settings})
        with service.api() as client:
            yield service, client

    def request(self, service: Service, who: str, how: str, name: str, body: Body) -> str:
        """Submit under an id (PUT) or an idempotency key (POST), and write the request down; gives the job's id."""
        headers = self.headers(who) | ({"Idempotency-Key": name} if how == "POST" else {})
        path = "/v1/jobs" if how == "POST" else f"/v1/jobs/{name}"
        answer = httpx2.request(how, service.url + path, json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        made = {field: answer.json()[field] for field in ("id", "created_at")}
        self.record["requests"].append({"who": who, "how": how, "name": name, "body": body, "job": made})
        return made["id"]

    def read(self, service: Service, who: str, *paths: str) -> None:
        """Write down what the service answers."""
        for path in paths:
            answer = httpx2.get(service.url + path, headers=self.headers(who))
            assert answer.status_code == 200, (path, answer.text)
            self.record["answers"].append({"who": who, "path": path, "body": answer.json()})

    def headers(self, who: str) -> dict[str, str]:
        """Show the key of a caller; nobody's is empty, while authentication is off."""
        return {"Authorization": f"Bearer {self.record['keys'][who]['key']}"} if who else {}


def make_state(backend: Backend, inputs: Path, bundles: Path, folder: Path, secret: Mapping[str, str]) -> Body:
    """Run a service through a life, and give the record of it.

    Args:
        backend: Where its state is to be.
        inputs: Holds a model, ``bert``, and its ``data``.
        bundles: Holds a bundle of that model, ``frontier``, in which every sublayer has something left.
        folder: For logs and scratch.
        secret: COPPICE_SECRET, where the profile does not keep one in its data folder.
    """
    maker = Maker(backend, folder, secret)
    with maker.api() as (service, client):
        _ask_and_cancel(maker, service, client)
        _upload(maker, client, inputs, bundles)
        _hook(maker, service)
        _finish(maker, service, client)
    with maker.api(COPPICE_JOB_TIMEOUT_S="0.5") as (service, client), service.worker():
        failed = maker.record["jobs"]["timeout"] = client.submit(_body(maker)).id
        assert client.wait(failed).error.code == "timeout"
    with maker.api() as (service, client):
        _abandon(maker, service, client)
        maker.record["jobs"]["queued"] = maker.request(service, "", "PUT", "nightly-8", _body(maker, seed=8))
        maker.read(service, "", *_paths(maker.record))
        deliveries = httpx2.get(f"{service.url}/v1/webhooks/{maker.record['webhook']['id']}/deliveries").json()["data"]
        maker.record["webhook"]["messages"] = [delivery["id"] for delivery in deliveries]
        assert all(delivery["delivered_at"] is None for delivery in deliveries)
    _share(maker, inputs)
    return maker.record


def _body(maker: Maker, **changes: Any) -> Body:
    model, data = maker.record["uploads"]["model"], maker.record["uploads"]["dataset"]
    return {"model": model, "task": task_of("bert", data), "target": HALF, **SMALL, **changes}


def _ask_and_cancel(maker: Maker, service: Service, client: Client) -> None:
    for name, body in SPECS.items():
        client.cancel(maker.request(service, "", "PUT", f"spec-{name}", body))
    for name in ("plain", "full-form", "blocks"):
        cancelled = maker.request(service, "", "POST", f"key of {name}", SPECS[name])
        client.cancel(cancelled)
    maker.record["jobs"]["cancelled"] = cancelled


def _upload(maker: Maker, client: Client, inputs: Path, bundles: Path) -> None:
    plain = maker.folder / "plain"
    plain.mkdir(exist_ok=True)
    for path in (bundles / "frontier").iterdir():
        if path.suffix in _UPLOADED:
            (plain / path.name).write_bytes(path.read_bytes())
    maker.record["uploads"] = {
        "model": client.upload_model(inputs / "bert").id,
        "dataset": client.upload_dataset(inputs / "data").id,
        "bundle": client.upload_model(plain).id,
    }
    # For a later release to run: it names what was uploaded, and its model is a bundle.
    blocks = {"sparsity": 0.5, "method": {"name": "block-lasso", "block": "4x4"}, "artifacts": {"formats": ["safetensors"]}}
    task = task_of("bert", maker.record["uploads"]["dataset"])
    maker.record["next"] = {"model": maker.record["uploads"]["bundle"], "task": task, **SMALL, **blocks}
    client.plan(maker.record["next"])


def _hook(maker: Maker, service: Service) -> None:
    answer = httpx2.post(f"{service.url}/v1/webhooks", json={"url": NOBODY_LISTENS})
    assert answer.status_code == 201, answer.text
    maker.record["webhook"] = {name: answer.json()[name] for name in ("id", "secret", "url")}


def _finish(maker: Maker, service: Service, client: Client) -> None:
    """Have one job succeed, and one fail that leaves a candidate to look at."""
    with service.worker():
        done = maker.request(service, "", "PUT", "nightly-7", _body(maker, metadata={"run": "7"}, priority=2))
        assert client.wait(done).status == "succeeded"
        floor = {"kind": "absolute", "value": 1.0}
        missed = maker.request(service, "", "POST", "nightly 7 again", _body(maker, quality_floor=floor))
        ended = client.wait(missed)
        assert (ended.status, ended.error.code) == ("failed", "quality_floor")
        assert ended.artifacts
    maker.record["jobs"] |= {"succeeded": done, "missed": missed}


def _abandon(maker: Maker, service: Service, client: Client) -> None:
    """Leave a job that is being cancelled and whose worker is gone."""
    long = {"batch": 512, "length": 24, "repeats": 1000}
    with service.worker() as worker:
        job = client.submit(_body(maker, latency=long))
        child = child_of(worker, job.id)
        wait_until(lambda: client.get(job.id).progress is not None, "progress")
        family = [worker, *worker.children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs([*family, child], timeout=10)
    assert client.cancel(job.id).status == "cancelling"
    maker.record["jobs"]["cancelling"] = job.id


def _paths(record: Body) -> list[str]:
    jobs, uploads = record["jobs"], record["uploads"]
    finished = (jobs["succeeded"], jobs["missed"])
    return [
        "/v1/jobs?limit=100",
        *(f"/v1/jobs/{job}" for job in jobs.values()),
        *(f"/v1/jobs/{job}/events?limit=100" for job in jobs.values()),
        *(f"/v1/jobs/{job}/{part}" for job in finished for part in ("artifacts", "report")),
        f"/hub/api/models/jobs/{jobs['succeeded']}",
        f"/hub/api/models/jobs/{jobs['succeeded']}/tree/main?recursive=true",
        "/v1/models",
        "/v1/datasets",
        f"/v1/models/{uploads['model']}",
        "/v1/webhooks",
    ]


def _share(maker: Maker, inputs: Path) -> None:
    """Turn authentication on, and have two tenants use the service; the ids that they choose are ids of others too."""
    environment = maker.backend.environment() | maker.secret
    for tenant, scopes in (("acme", ()), ("globex", ("jobs:read", "jobs:write")), ("operator", ("jobs:read", "admin"))):
        maker.record["keys"][tenant] = _key(environment, tenant, scopes)
    revoked = _key(environment, "acme", ())
    known = {"COPPICE_API_KEY": maker.record["keys"]["acme"]["key"]}
    with patch.dict(os.environ, known), maker.api(COPPICE_AUTH="true") as (service, client):
        answer = httpx2.delete(f"{service.url}/v1/keys/{revoked['id']}", headers=maker.headers("operator"))
        assert answer.status_code == 200, answer.text
        maker.record["keys"]["revoked"] = revoked
        assert client.upload_model(inputs / "bert").id == maker.record["uploads"]["model"], "stored once for everybody"
        for tenant in ("acme", "globex"):
            for how in ("PUT", "POST"):
                job = maker.request(service, tenant, how, "nightly-7", SPECS["plain"] | {"metadata": {"of": tenant}})
                cancelled = httpx2.post(f"{service.url}/v1/jobs/{job}/cancel", headers=maker.headers(tenant))
                assert cancelled.status_code == 202, cancelled.text
            maker.read(service, tenant, "/v1/jobs", f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", "/v1/models", "/v1/webhooks")
        maker.read(service, "operator", "/v1/keys", "/v1/audit-events?limit=200")


def _key(environment: Mapping[str, str], tenant: str, scopes: tuple[str, ...]) -> Body:
    command = [sys.executable, "-m", "coppice.cli", "keys", "create", "--tenant", tenant, "--name", "nightly", "--json"]
    command += [word for scope in scopes for word in ("--scope", scope)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    return {"id": made["id"], "key": made["key"]}
