"""Shares and limits of tenants and queues over HTTP, by both clients and the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner

from app.jobs.rules import RuleService
from app.keys.records import Caller, Scope
from coppice import AsyncClient, Client
from coppice.cli import app as command_line
from coppice.errors import ApiError
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.contract.test_edges import listening


def test_a_tenant_s_share_and_limit_are_set_apart_and_audited(api: Api) -> None:
    seen = api.client.patch("/v1/tenants/acme", json={"share": 3, "max_running": 8})
    assert seen.status_code == 200, seen.text
    assert {name: seen.json()[name] for name in ("tenant", "share", "max_running", "keys")} == {
        "tenant": "acme",
        "share": 3,
        "max_running": 8,
        "keys": 0,
    }
    assert api.client.patch("/v1/tenants/acme", json={"share": 0.5}).json()["max_running"] == 8
    assert api.client.patch("/v1/tenants/acme", json={"max_running": None}).json()["share"] == 0.5
    seen = api.client.get("/v1/tenants/acme").json()
    assert (seen["share"], seen["max_running"]) == (0.5, None)
    assert api.client.get("/v1/tenants").json()["data"] == [seen]
    assert_problem(api.client.get("/v1/tenants/nobody"), 404, "tenant_not_found")
    told = [(event["action"], event["subject"]) for event in api.client.get("/v1/audit-events").json()["data"]]
    assert told == [("tenant.set", "acme")] * 3


def test_a_limit_holds_from_the_next_claim_on(api: Api) -> None:
    for _ in range(2):
        api.submit()
    assert api.client.put("/v1/queues/any", json={"max_running": 1}).json() == {
        "object": "queue.named",
        "queue": "any",
        "max_running": 1,
        "waiting": 2,
        "running": 0,
    }
    api.claim()
    with pytest.raises(AssertionError):
        api.claim()
    (seen,) = api.client.get("/v1/queues").json()["data"]
    assert (seen["waiting"], seen["running"], seen["max_running"]) == (1, 1, 1)
    assert api.client.put("/v1/queues/any", json={"max_running": None}).json()["max_running"] is None
    api.claim()
    assert api.client.put("/v1/queues/cuda+a100", json={"max_running": 4}).json()["queue"] == "cuda+a100"
    assert [own["queue"] for own in api.client.get("/v1/queues").json()["data"]] == ["any", "cuda+a100"]


WRONG_FOR_TENANTS = [
    ({}, "give share, max_running or both"),
    ({"share": 0}, "0.001"),
    ({"share": 1001}, "1000"),
    ({"share": None}, "number"),
    ({"max_running": 0}, "1"),
    ({"max_running": 2**31}, "2147483647"),
    ({"max_running": 1.5}, "whole"),
    ({"shares": 2}, "share"),
]


@pytest.mark.parametrize(("body", "said"), WRONG_FOR_TENANTS)
def test_what_cannot_be_set_for_a_tenant_is_told(api_on_sqlite: Api, body: dict[str, object], said: str) -> None:
    assert said in assert_problem(api_on_sqlite.client.patch("/v1/tenants/acme", json=body), 422, "invalid_request")["detail"]
    assert_problem(api_on_sqlite.client.get("/v1/tenants/acme"), 404, "tenant_not_found")


@pytest.mark.parametrize(("name", "body"), [("gpu", {"max_running": 1}), ("cuda+b+a", {"max_running": 1}), ("any", {})])
def test_what_cannot_be_set_for_a_queue_is_told(api_on_sqlite: Api, name: str, body: dict[str, object]) -> None:
    assert_problem(api_on_sqlite.client.put(f"/v1/queues/{name}", json=body), 422, "invalid_request")
    assert api_on_sqlite.client.get("/v1/queues").json()["data"] == []


def test_names_of_tenants_are_those_of_keys(api_on_sqlite: Api) -> None:
    for name in ("-x", "a b", "x" * 65):
        assert_problem(api_on_sqlite.client.patch(f"/v1/tenants/{name}", json={"share": 2}), 422, "invalid_request")


def test_who_set_it_is_in_the_audit_log(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, secret="s" * 40)
    keys, scopes = api.client.app.state.keys, frozenset({Scope.ADMIN})
    _key, text = keys.create(owner="operator", name="", scopes=scopes, lives_s=None, caller=Caller())
    operator = {"Authorization": f"Bearer {text}"}
    assert api.client.patch("/v1/tenants/acme", json={"share": 2}, headers=operator).status_code == 200
    assert api.client.put("/v1/queues/cpu", json={"max_running": 2}, headers=operator).status_code == 200
    told = api.client.get("/v1/audit-events", headers=operator).json()["data"]
    mine = [(own["action"], own["subject"], own["tenant"], own["key_id"][:4]) for own in told if own["action"].endswith(".set")]
    assert mine == [("queue.set", "cpu", "operator", "key_"), ("tenant.set", "acme", "operator", "key_")]


@pytest.fixture
def url(api_on_sqlite: Api) -> Iterator[str]:
    with listening(api_on_sqlite.client.app.state.settings) as port:
        yield f"http://127.0.0.1:{port}"


def test_clients_and_command_line_do_the_same(api_on_sqlite: Api, url: str) -> None:
    with Client(url) as client:
        assert client.set_tenant("acme", share=2, max_running=3).max_running == 3
        assert client.set_tenant("acme", max_running="default").max_running is None
        assert client.set_queue("cuda+a100", max_running=1).max_running == 1
        assert (client.tenant("acme").share, client.queues()[0].queue) == (2, "cuda+a100")
        with pytest.raises(ApiError, match="nothing of a tenant"):
            client.tenant("nobody")

    async def asked() -> None:
        async with AsyncClient(url) as client:
            assert (await client.set_tenant("acme", share=4)).share == 4
            assert [own.tenant for own in await client.tenants()] == ["acme"]
            assert (await client.set_queue("cuda+a100", max_running=None)).max_running is None

    asyncio.run(asked())
    run = CliRunner().invoke(command_line, ["tenants", "set", "acme", "--share", "5", "--max-running", "7", "--url", url])
    assert (run.exit_code, run.output) == (0, "acme: share 5, 7 jobs at once\n")
    run = CliRunner().invoke(command_line, ["queue", "set", "cpu", "--max-running", "2", "--url", url])
    assert (run.exit_code, run.output) == (0, "cpu: 2 at once\n")
    run = CliRunner().invoke(command_line, ["queue", "list", "--json", "--url", url])
    assert run.output == '[{"name": "cpu", "max_running": 2, "waiting": 0, "running": 0}]\n'
    rules = RuleService(api_on_sqlite.database)
    assert [(own.name, own.max_running) for own in rules.queues()] == [("cpu", 2)]
