"""Attacks that were found after the catalogue: each broke the service once."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from anyio import create_task_group, to_thread

from app.breadth import MOST_VALUES, is_too_wide
from app.webhooks.guard import is_allowed
from app.webhooks.repository import WebhookRepository
from pruning_core.spec.prune import PruneSpec
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.contract.test_security import key_of

MEGABYTE = 2**20 - 1000
LONGEST_ANSWER = 200_000
FORM = {"content-type": "application/x-www-form-urlencoded", "accept": "text/html"}


def _filled(item: Callable[[int], str], between: str = ",", size: int = MEGABYTE) -> str:
    """Repeat something to the size that a body may have."""
    count = size // (len(item(10**5)) + len(between))
    return between.join(map(item, range(count)))


def _spec(**changes: Any) -> dict[str, Any]:
    return {"model": "a/b", "task": "glue/sst2", "sparsity": 0.5} | changes


WIDE = {
    "fields": lambda size: "{" + _filled(lambda n: f'"{n:x}":1', size=size) + "}",
    "fields of columns": lambda size: (
        '{"model":"a/b","task":{"columns":{' + _filled(lambda n: f'"{n:x}":1', size=size) + '}},"sparsity":0.5}'
    ),
    "targets": lambda size: '{"model":"a/b","targets":[' + _filled(lambda _: "1", size=size) + "]}",
    "targets that are lists": lambda size: '{"model":"a/b","targets":[' + _filled(lambda _: "[]", size=size) + "]}",
    "text columns": lambda size: '{"task":{"columns":{"text":[' + _filled(lambda _: "1", size=size) + "]}}}",
    "formats": lambda size: '{"artifacts":{"formats":[' + _filled(lambda _: "1", size=size) + "]}}",
    "metadata": lambda size: '{"metadata":{' + _filled(lambda n: f'"{n:x} !":1', size=size) + "}}",
}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/webhooks"])
@pytest.mark.parametrize("size", [20_000, MEGABYTE])
@pytest.mark.parametrize("name", WIDE)
def test_a_body_of_many_wrong_values_is_refused_as_one(api_on_sqlite: Api, name: str, size: int, path: str) -> None:
    """A megabyte had the event loop write 79 MB of errors, and answer nobody for 6 s."""
    began = time.monotonic()
    answer = api_on_sqlite.client.post(path, content=WIDE[name](size), headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert_problem(answer, answer.status_code, "malformed_request" if answer.status_code == 400 else "invalid_request")
    assert len(answer.content) < LONGEST_ANSWER
    assert time.monotonic() - began < 2


def test_long_names_are_not_echoed(api_on_sqlite: Api) -> None:
    """One name of 900 KB came back three times."""
    answer = api_on_sqlite.client.post("/v1/jobs", json=_spec(**{"x" * 900_000: 1}))
    assert_problem(answer, 422, "invalid_request")
    assert len(answer.content) < 5000


def test_errors_have_an_end(api_on_sqlite: Api) -> None:
    answer = api_on_sqlite.client.post("/v1/jobs", json=_spec(**{f"field{n}": 1 for n in range(MOST_VALUES - 10)}))
    assert len(assert_problem(answer, 422, "invalid_request")["errors"]) == 100


def test_the_widest_sound_request_is_taken(api_on_sqlite: Api) -> None:
    """All that a spec may say, with texts of nothing but commas."""
    api = api_on_sqlite
    targets = [{"metric": "macs", "keep": round(0.4 + n / 100, 2), "tolerance": 0.01} for n in range(16)]
    body = {name: value for name, value in api.body.items() if name != "sparsity"} | {"targets": targets}
    whole = PruneSpec.model_validate(body).model_dump(mode="json") | {
        "metadata": {f"{n:064d}": "," * 512 for n in range(16)},
        "priority": 0,
    }
    assert not is_too_wide(whole)
    answer = api.client.post("/v1/jobs", content=json.dumps(whole), headers={"content-type": "application/json"})
    assert answer.status_code == 202, answer.text


def test_a_split_s_name_that_no_file_can_have_is_said_so(api_on_sqlite: Api) -> None:
    """It was said that the files cannot be read, and each try wrote an error of ours into the log."""
    columns = {"text": ["sentence"], "label": "label"}
    task = {"type": "text-classification", "columns": columns, "metric": "accuracy", "train_split": "a" * 1000}
    answer = api_on_sqlite.client.post("/v1/jobs", json=api_on_sqlite.body | {"task": task})
    assert "240 bytes" in assert_problem(answer, 422, "dataset_invalid")["detail"]


FORMS: Mapping[str, dict[str, str]] = {
    "a list too deep in place of a number": {"calibration.samples": "[" * 100_000},
    "objects too deep in place of a number": {"calibration.samples": '{"a":' * 50_000},
    "a number of per cent of per cent": {"amount": "%" * 100_000},
    "metadata without end": {"metadata": _filled(lambda n: f"{n:x} !=", "\n", 300_000)},
    "amounts without end": {"amount": _filled(lambda _: "x", size=300_000)},
    "columns without end": {"task": "text-classification", "text_column": _filled(lambda _: "x", size=300_000)},
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_are_bombs_are_refused_on_the_form(api_on_sqlite: Api, name: str) -> None:
    """Depth was a 500; many errors were compared with each other, for minutes."""
    sent = {"model": "a/b", "task": "glue/sst2", "metric": "macs", "amount": "0.5", "method": "fisher-cg"} | FORMS[name]
    began = time.monotonic()
    answer = api_on_sqlite.client.post("/submit", data=sent, headers=FORM)
    assert answer.status_code in (400, 422), answer.status_code
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("path", ["\u20ac", "\0", "\U0001f600" * 50, "a\x7fb", "\x1b[31m"])
def test_paths_of_the_hub_that_no_header_can_hold_are_not_found(api_on_sqlite: Api, path: str) -> None:
    """The path stands in X-Error-Message: it was a 500."""
    job_id = api_on_sqlite.submit()
    api_on_sqlite.succeed()
    answer = api_on_sqlite.client.get(f"/hub/api/models/jobs/{job_id}/tree/main/{quote(path)}")
    assert_problem(answer, 404, "not_found")
    assert answer.headers["x-error-message"].isprintable()


@pytest.mark.parametrize("address", ["fec0::1", "3fff::1", "5f00::1", "192.88.99.1", "192.0.0.8"])
def test_networks_of_no_public_use_are_not_called(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address), ())
    assert is_allowed(ipaddress.ip_address(address), (ipaddress.ip_network(f"{address}"),)), "unless the operator says so"


@pytest.mark.parametrize("where", ["evaluation", "method"])
def test_numbers_have_an_end(api_on_sqlite: Api, where: str) -> None:
    """Four thousand digits were taken, stored, and met by the worker's libraries."""
    number = int("9" * 4000)
    changes: dict[str, Any] = (
        {"evaluation": {"max_samples": number}}
        if where == "evaluation"
        else {"method": {"name": "admm-lasso", "training": {"max_train_rows": number}}}
    )
    assert_problem(api_on_sqlite.client.post("/v1/jobs", json=_spec(**changes)), 422, "invalid_request")


def _webhook_of(api: Api, key: dict[str, str], url: str) -> str:
    answer = api.client.post("/v1/webhooks", json={"url": url}, headers=key)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_tenant_with_slow_receivers_holds_up_nobody_else(
    request: pytest.FixtureRequest, make_api: Callable[..., Api], database: str
) -> None:
    """Messages were sent by age alone, 20 at a time: with 1200 tests a minute nobody else's were ever sent."""
    url = "" if database == "sqlite" else request.getfixturevalue("postgres_url")
    api = make_api(url, auth=True, secret="s" * 40, webhook_poll_s=3600)
    flooding, honest = key_of(api, "flooding"), key_of(api, "honest")
    slow = _webhook_of(api, flooding, "https://slow.example/")
    tests = [api.client.post(f"/v1/webhooks/{slow}/test", headers=flooding).status_code for _ in range(60)]
    assert tests == [202] * 50 + [429] * 10
    awaited = _webhook_of(api, honest, "https://honest.example/")
    assert api.client.post(f"/v1/webhooks/{awaited}/test", headers=honest).status_code == 202
    claimed: list[str] = []
    with api.database.write() as connection:
        claimed += [delivery.webhook_id for delivery in WebhookRepository(connection).claim(lease_s=60)]
    assert awaited in claimed, "though 50 are older"
    with api.database.write() as connection:
        claimed += [delivery.webhook_id for delivery in WebhookRepository(connection).claim(lease_s=60)]
    assert (len(claimed), claimed.count(awaited)) == (8 + 1 + 8, 1), "each is claimed once, and the flood is sent, too"


def test_the_service_s_own_folders_stay_closed_under_a_root(make_api: Callable[..., Api], tmp_path: Path) -> None:
    """With the data folder under an allowed root, one tenant named another's upload by its path."""
    api = make_api("", auth=True, secret="s" * 40, allowed_roots=(tmp_path,))
    victim, thief = key_of(api, "victim"), key_of(api, "thief")
    data = Path(api.body["data"])
    sent = api.client.post("/v1/datasets", content=packed(contents(data)), headers=victim | TAR)
    assert sent.status_code == 201, sent.text
    settings = api.client.app.state.settings
    uploads = settings.resolved_uploads_dir
    models = settings.data_dir / "models"  # an operator's, beside ours
    shutil.copytree(api.body["model"], models / "bert")
    shutil.copytree(data, tmp_path / "mine")
    (tmp_path / "link").symlink_to(uploads / sent.json()["id"])
    body = api.body | {"model": str(models / "bert"), "data": str(tmp_path / "mine")}
    assert api.client.post("/v1/jobs", json=body, headers=thief).status_code == 202
    for path in (uploads / sent.json()["id"], uploads, uploads.parent, settings.data_dir, tmp_path, tmp_path / "link"):
        answer = api.client.post("/v1/jobs", json=body | {"data": str(path)}, headers=thief)
        assert_problem(answer, 422, "path_not_allowed")
    own = make_api("", allowed_roots=(Path(api.body["model"]).parent, uploads / sent.json()["id"]))
    answer = own.client.post("/v1/jobs", json=own.body | {"data": str(uploads / sent.json()["id"])})
    assert answer.status_code == 202, "a folder that the operator names is open"


def test_the_document_of_the_api_is_made_beside_the_event_loop(api_on_sqlite: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took the event loop 0.8 s to make, and 10 ms to write out again for each stranger."""
    made: list[bool] = []
    derive = api_on_sqlite.client.app.openapi

    def watched() -> dict[str, Any]:
        try:
            asyncio.get_running_loop()
            made.append(True)
        except RuntimeError:
            made.append(False)
        return derive()

    monkeypatch.setattr(api_on_sqlite.client.app, "openapi", watched)
    first, second = (api_on_sqlite.client.get("/openapi.json") for _ in range(2))
    assert first.json()["info"]["title"] == "Coppice"
    assert first.content == second.content
    assert made == [False]


def test_life_shows_though_all_threads_are_taken(api_on_sqlite: Api) -> None:
    """It took a thread of the forty that wait for databases and disks: a flood of submits had the service killed for dead."""
    api, free = api_on_sqlite, threading.Event()
    answers: list[int] = []
    assert api.client.portal is not None
    with api.client.portal.wrap_async_context_manager(_taken(free)):
        asking = threading.Thread(target=lambda: answers.append(api.client.get("/healthz").status_code))
        asking.start()
        asking.join(20)
        in_time = list(answers)
        free.set()
        asking.join()
    assert in_time == [200]


@contextlib.asynccontextmanager
async def _taken(free: threading.Event) -> AsyncGenerator[None]:
    limiter = to_thread.current_default_thread_limiter()
    async with create_task_group() as tasks:
        for _ in range(int(limiter.total_tokens)):
            tasks.start_soon(to_thread.run_sync, free.wait, 20)
        yield
