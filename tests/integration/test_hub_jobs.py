"""Jobs on models and data sets of the Hub: fetched by a process of their own, pruned in a sandbox without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.keys.records import Caller, Scope
from app.keys.service import KeyService
from app.secret import ServerSecret
from app.settings import Settings
from coppice import Client
from coppice.types import Job
from tests.hub import Hub, hub
from tests.integration.service import Backend, Service, answers
from tests.servers import wait_until
from tests.tiny import tiny_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.parquet
  - split: validation
    path: {validation}
---
"""
TOKEN = "hf_of_the_operator"
SECRET = "a secret of the server's own, in more than 32 letters"


@dataclass
class Site:
    """A service whose Hub is on loopback."""

    service: Service
    hub: Hub
    data: Path
    spec: dict[str, Any]

    def body(self, model: str = "org/name", dataset: str = "org/data") -> dict[str, Any]:
        task = {**self.spec["task"], "name": None, "dataset": dataset, "config": None}
        return {**self.spec, "model": model, "task": task}


@pytest.fixture
def make_site(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> Iterator[Any]:
    data = tmp_path / "hub-data"
    shutil.copytree(tiny_sst2, data)
    (data / "README.md").write_text(README.format(validation="validation.parquet"))
    folders = {("model", "org/name"): tiny_bert, ("model", "org/private"): tiny_bert, ("dataset", "org/data"): data}
    with hub(folders) as its:
        its.private["org/private"] = TOKEN

        def make(**settings: str) -> Site:
            (tmp_path / "logs").mkdir()
            places = {"HF_ENDPOINT": its.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
            service = Service(Backend("local", tmp_path / "data", "", ""), tmp_path / "logs", settings=places | settings)
            return Site(service, its, data, tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json"))

        yield make


def run(client: Client, body: Mapping[str, Any]) -> Job:
    return client.wait(client.submit(body).id)


@contextmanager
def keys(site: Site) -> Iterator[Any]:
    """Make keys of tenants in the service's database."""
    database = site.service.backend.database()
    settings = Settings(data_dir=site.service.backend.data_dir, secret=SECRET)
    made = KeyService(database, ServerSecret(settings))
    scopes = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
    try:
        yield lambda owner: made.create(owner=owner, name="", scopes=scopes, lives_s=None, caller=Caller())[1]
    finally:
        database.close()


@pytest.mark.long
def test_what_the_hub_has_is_fetched_and_pruned(make_site: Any, tmp_path: Path) -> None:
    site = make_site()
    with site.service.running() as client:
        job = run(client, site.body())
        assert job.status == "succeeded", job.error
        card = client.download(job.id, tmp_path / "bundle") / "README.md"
        assert "org/name" in card.read_text(), "the source keeps its name"
        unknown = run(client, site.body(model="org/unknown"))
        assert unknown.error is not None
        assert (unknown.error.code, unknown.error.param) == ("model_unreadable", "model")
    assert TOKEN in site.hub.tokens


@pytest.mark.long
def test_a_hub_id_is_never_a_folder_and_a_readme_never_leads_outside(make_site: Any, tmp_path: Path) -> None:
    """C1: a data set by the name of a folder beside the worker, and one whose README names another tenant's rows."""
    site = make_site()
    # As in the image, whose working directory holds the uploads.
    for folder in (Path.cwd() / "uploads-of-others", tmp_path / "elsewhere"):
        folder.mkdir()
        for split in ("train", "validation"):
            shutil.copy(site.data / f"{split}.parquet", folder)
    try:
        with site.service.running() as client:
            beside = run(client, site.body(dataset="uploads-of-others"))
            (site.data / "README.md").write_text(README.format(validation=tmp_path / "elsewhere" / "validation.parquet"))
            absolute = run(client, site.body())
            (site.data / "README.md").write_text(README.format(validation="../../../../../elsewhere/validation.parquet"))
            upwards = run(client, site.body())
    finally:
        shutil.rmtree(Path.cwd() / "uploads-of-others")
    for job, said in (
        (beside, "could not be loaded"),
        (absolute, "outside of the data set"),
        (upwards, "outside of the data set"),
    ):
        assert job.status == "failed"
        assert job.error is not None
        assert (job.error.code, job.error.param) == ("dataset_invalid", "task.dataset")
        assert said in job.error.message


@pytest.mark.long
def test_the_workers_token_and_what_it_fetched_are_for_named_tenants(make_site: Any) -> None:
    site = make_site(COPPICE_AUTH="true", COPPICE_SECRET=SECRET, COPPICE_HUB_TOKEN_TENANTS="acme", COPPICE_SANDBOX="preferred")
    port = site.service.url.rpartition(":")[2]
    api = site.service.process("api", "-m", "uvicorn", "app.main:create_app", "--factory", "--port", port)
    with api, site.service.worker(), keys(site) as key_of:
        with Client(site.service.url, api_key=key_of("acme")) as acme:
            wait_until(lambda: answers(acme), "the API to answer")
            assert run(acme, site.body(model="org/private")).status == "succeeded"
        site.hub.tokens.clear()
        with Client(site.service.url, api_key=key_of("rival")) as rival:
            refused = run(rival, site.body(model="org/private"))
            assert refused.error is not None
            assert refused.error.code == "model_unreadable"
    assert set(site.hub.tokens) == {""}


@pytest.mark.long
def test_what_is_too_large_is_not_fetched(make_site: Any) -> None:
    site = make_site(COPPICE_HUB_MAX_BYTES=str(2**20))
    weights = site.data / "train.parquet"
    with weights.open("ab") as file:
        file.truncate(2**21)
    with site.service.running() as client:
        job = run(client, site.body())
    assert job.error is not None
    assert job.error.code == "dataset_invalid"
    assert "more than the 1048576 that are fetched here" in job.error.message
