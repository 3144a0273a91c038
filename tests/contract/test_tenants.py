"""The tenant matrix: every route of the contract, asked by its owner, by another tenant, without a key, with a revoked one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response

from app.jobs.records import JobError
from app.keys.records import Caller, Scope
from app.keys.sessions import cookie_name
from app.web.rendering import PageRoute
from app.web.routes import ROUTERS
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.unit.worker.test_signing import write_key

BOTH = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
ADMIN_ONLY = {"createKey", "listKeys", "revokeKey", "listAuditEvents", "exportAuditEvents", "deleteTenant"} | {
    "listTenants",
    "getTenant",
    "setTenant",
    "listQueues",
    "setQueue",
    "getQueue",
    "pauseQueue",
    "drainQueue",
    "resumeQueue",
}
OPEN = {"getHealth", "getReadiness"}
OF_LOGINS = {"endSession"}  # keys have none: 409 for all who may read
COOKIE = cookie_name(secure=False)


@dataclass
class World:
    """Two tenants; the first has one of everything."""

    api: Api
    keys: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)

    def operations(self) -> dict[str, tuple[str, str]]:
        """Method and path of every operation of the contract."""
        paths = self.api.client.get("/openapi.json").json()["paths"]
        return {item["operationId"]: (method, path) for path, found in paths.items() for method, item in found.items()}

    def pages(self) -> list[tuple[str, str]]:
        """Method and path of every page, new ones included; what changes something comes last."""
        routes = [route for router in ROUTERS for route in router.routes]
        assert all(isinstance(route, PageRoute) for route in routes)
        found = [(method, route.path) for route in routes for method in route.methods]
        assert len(found) >= 9
        return sorted(found, key=lambda page: (page[0] != "GET", page))

    def open(self, method: str, path: str, actor: str) -> Response:
        """Ask for a page as a browser does: with a session, and following nothing."""
        self.api.client.cookies.clear()
        if actor in self.sessions:
            self.api.client.cookies[COOKIE] = self.sessions[actor]
        job = {"cancel": "queued", "retry": "failed", "delete": "doomed"}.get(path.rpartition("/")[2], "done")
        bodies = {"/submit": self.form, "/sign-in": {"key": "nonsense"}, BY_PROVIDER_ALONE: {"challenge": "x" * 43}}
        of_a_job = {"derive": {"keep": "40", "once": "0" * 32}, "name": {"name": "Another name"}}
        body = bodies.get(path, of_a_job.get(path.rpartition("/")[2], {}))
        asked = {"data": body} if method == "POST" else {}
        return self.api.client.request(method, path.format(job_id=self.ids[job]), follow_redirects=False, **asked)

    def ask(self, operation: str, actor: str) -> Response:
        method, path = self.operations()[operation]
        job = {"cancelJob": "queued", "retryJob": "failed", "putJob": "named", "deleteJob": "doomed"}.get(operation, "done")
        names = {
            "job_id": self.ids[job],
            "calibration_id": self.ids["calibration"],
            "path": "1_Pooling" if operation == "listHubFolder" else "model.safetensors",
            "revision": "main",
            "webhook_id": self.ids["webhook"],
            "key_id": self.ids["key"],
            "tenant": "spare",
            "queue": "cuda+a100",
            "upload_id": self.ids["dataset" if "dataset" in path else "model"],
        }
        headers = {"Authorization": f"Bearer {self.keys[actor]}"} if actor in self.keys else {}
        asked = self.bodies.get(operation, {})
        return self.api.client.request(method, path.format(**names), **asked | {"headers": headers | asked.get("headers", {})})


def make_world(api: Api, model: Path, data: Path) -> World:
    world = World(api)
    keys = api.client.app.state.keys
    tenants = {"own": ("acme", BOTH), "other": ("rival", BOTH), "admin": ("operator", frozenset({Scope.ADMIN}))}
    tenants |= {"reader": ("acme", frozenset({Scope.JOBS_READ})), "writer": ("acme", frozenset({Scope.JOBS_WRITE}))}
    tenants |= {"of spare": ("spare", BOTH)}
    tenants |= {"revoked": ("acme", BOTH), "expired": ("acme", BOTH), "spare": ("acme", BOTH)}
    for actor, (owner, scopes) in tenants.items():
        lives_s = 0.001 if actor == "expired" else None
        key, text = keys.create(owner=owner, name=actor, scopes=scopes, lives_s=lives_s, caller=Caller())
        world.keys[actor] = text
        world.sessions[actor] = keys.begin_session(key)
        if actor == "revoked":
            keys.revoke(key.id, caller=Caller())
        if actor == "spare":
            world.ids["key"] = key.id
    world.sessions |= {"nonsense": "nonsense", "broken": f"{world.sessions['own']}x"}
    world.form = {"model": str(model), "data": str(data), "task": "glue/sst2", "metric": "macs", "amount": "0.5"}
    world.form |= {"method": "fisher-cg", "artifacts.formats": "safetensors"}
    world.keys |= {"nonsense": "cpk_" + "A" * 43, "broken": "cpk_" + "%" * 43}
    api.client.headers["Authorization"] = f"Bearer {world.keys['own']}"
    world.ids["done"] = api.submit()
    api.succeed()
    world.ids["doomed"] = api.submit()
    api.succeed()
    world.ids["failed"] = api.submit()
    api.fail(JobError("target_missed", "too coarse"), with_files=True)
    world.ids["queued"] = api.submit()
    world.ids["named"] = "nightly-7"
    calibration = {name: value for name, value in api.body.items() if name != "sparsity"}
    world.ids["calibration"] = api.client.post("/v1/calibrations", json=calibration).json()["id"]
    model_tar, data_tar = packed(contents(model)), packed(contents(data))
    hook = {"url": "https://example.org/hook"}
    world.ids["webhook"] = api.client.post("/v1/webhooks", json=hook).json()["id"]
    world.ids["model"] = api.client.post("/v1/models", content=model_tar, headers=TAR).json()["id"]
    world.ids["dataset"] = api.client.post("/v1/datasets", content=data_tar, headers=TAR).json()["id"]
    del api.client.headers["Authorization"]
    world.bodies = {
        "createJob": {"json": api.body},
        "createCalibration": {"json": calibration},
        "putJob": {"json": api.body},
        "deriveJob": {"json": {"sparsity": 0.4}},
        "cancelJobs": {"json": {"all": True, "dry_run": True}},
        "retryJobs": {"json": {"all": True, "dry_run": True}},
        "createWebhook": {"json": hook},
        "createKey": {"json": {"tenant": "new"}},
        "renameJob": {"json": {"name": "Another name"}},
        "setTenant": {"json": {"share": 3}},
        "setQueue": {"json": {"max_running": 4}},
        "uploadModel": {"content": model_tar, "headers": TAR},
        "uploadDataset": {"content": data_tar, "headers": TAR},
    }
    return world


@pytest.fixture
def world(api: Api, tiny_bert: Path, tiny_sst2: Path) -> World:
    return make_world(api, tiny_bert, tiny_sst2)


@pytest.fixture
def make_api(make_api: Callable[..., Api], tmp_path: Path) -> Callable[..., Api]:
    private, _public = write_key(tmp_path)  # without one, the route of the signing key knows nothing to everybody
    return lambda database_url: make_api(database_url, auth=True, secret="s" * 40, signing_key=private)


# What ends or deletes something comes last.
_LAST = (
    "cancelJob",
    "retryJob",
    "deleteJob",
    "deleteCalibration",
    "revokeKey",
    "deleteWebhook",
    "deleteModel",
    "deleteDataset",
)


def in_order(world: World) -> list[str]:
    names = [name for name in world.operations() if name not in OPEN]
    return sorted(names, key=lambda name: (_LAST.index(name) if name in _LAST else -1, name))


@pytest.mark.parametrize("actor", ["nobody", "revoked", "expired", "nonsense", "broken"])
def test_without_a_good_key_every_route_is_a_401(world: World, actor: str) -> None:
    for operation in in_order(world):
        response = world.ask(operation, actor)
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert_problem(world.api.client.get("/v1/anything"), 401, "unauthenticated")
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert world.api.client.get(path).status_code == 200


@pytest.mark.long
def test_another_tenant_finds_nothing(world: World) -> None:
    # Uploads last: whoever uploads the same content may use it, and its id is the same.
    for operation in sorted(in_order(world), key=lambda name: name.startswith("upload")):
        _method, path = world.operations()[operation]
        response = world.ask(operation, "other")
        if operation in ADMIN_ONLY:
            assert_problem(response, 403, "insufficient_scope")
        elif operation in OF_LOGINS:
            assert_problem(response, 409, "no_login")
        elif "{" in path and operation != "putJob":
            assert response.status_code == 404, (operation, response.text)
        else:
            assert response.status_code < 300, (operation, response.text)
            for name in ("done", "failed", "queued", "webhook"):
                assert world.ids[name] not in response.text, operation
    # Neither by the numbers nor by what happens to them can tenants tell of each other.
    for listing in ("/v1/jobs", "/v1/webhooks"):
        shown = world.api.client.get(listing, headers={"Authorization": f"Bearer {world.keys['other']}"}).json()["data"]
        assert len(shown) == (2 if listing == "/v1/jobs" else 1)
    done = world.ask("getJob", "own").json()
    assert done["status"] == "succeeded"
    stream = {"accept": "text/event-stream", "Authorization": f"Bearer {world.keys['other']}"}
    assert_problem(world.api.client.get(f"/v1/jobs/{world.ids['done']}/events", headers=stream), 404, "job_not_found")


def test_the_owner_may_do_everything_but_what_is_for_operators(world: World) -> None:
    for operation in in_order(world):
        response = world.ask(operation, "own")
        if operation in ADMIN_ONLY:
            assert_problem(response, 403, "insufficient_scope")
        elif operation in OF_LOGINS:
            assert_problem(response, 409, "no_login")
        else:
            assert response.status_code < 400, (operation, response.text)
    for operation in sorted(ADMIN_ONLY, key=lambda name: (name == "deleteTenant", name)):
        assert world.ask(operation, "admin").status_code < 300


@pytest.mark.long
def test_a_scope_opens_its_routes_and_no_other(world: World) -> None:
    for operation in in_order(world):
        method, _path = world.operations()[operation]
        reads = method in ("get", "head") or operation in OF_LOGINS
        for actor, allowed in (("reader", reads), ("writer", not reads), ("admin", False)):
            expected = actor == "admin" if operation in ADMIN_ONLY else allowed
            status = world.ask(operation, actor).status_code
            assert (status != 403) == expected, (operation, actor, status)


def test_two_tenants_may_choose_the_same_id_and_the_same_idempotency_key(world: World) -> None:
    for actor in ("own", "other"):
        assert world.ask("putJob", actor).json()["id"] == "nightly-7"
        headers = {"Authorization": f"Bearer {world.keys[actor]}", "Idempotency-Key": "k"}
        assert world.api.client.post("/v1/jobs", json=world.api.body | {"seed": len(actor)}, headers=headers).status_code == 202
    own = world.api.client.get("/v1/jobs/nightly-7", headers={"Authorization": f"Bearer {world.keys['own']}"})
    assert own.json()["metadata"] == {}
    world.api.client.post("/v1/jobs/nightly-7/cancel", headers={"Authorization": f"Bearer {world.keys['other']}"})
    again = world.api.client.get("/v1/jobs/nightly-7", headers={"Authorization": f"Bearer {world.keys['own']}"})
    assert again.json()["status"] == "queued"


def test_an_upload_of_another_tenant_cannot_be_named(world: World) -> None:
    for field_, kind in (("model", "model"), ("data", "dataset")):
        body = world.api.body | {field_: world.ids[kind]}
        refused = world.api.client.post("/v1/jobs", json=body, headers={"Authorization": f"Bearer {world.keys['other']}"})
        problem = assert_problem(refused, 422, "upload_not_found")
        assert problem["errors"][0]["pointer"] == f"/{field_}"
        accepted = world.api.client.post("/v1/jobs", json=body, headers={"Authorization": f"Bearer {world.keys['own']}"})
        assert accepted.status_code == 202


def test_what_was_changed_is_written_down_with_who_did_it(world: World) -> None:
    world.ask("putJob", "own")
    world.ask("cancelJob", "own")
    events = world.api.client.get(
        "/v1/audit-events", params={"tenant": "acme"}, headers={"Authorization": f"Bearer {world.keys['admin']}"}
    ).json()["data"]
    actions = [event["action"] for event in events]
    assert actions[:2] == ["job.cancel_requested", "job.submitted"]
    assert {"upload.stored", "webhook.created"} <= set(actions)
    assert {event["tenant"] for event in events} == {"acme"}
    assert all(event["key_id"].startswith("key_") for event in events)


def test_keys_are_kept_as_hashes_and_shown_once(world: World) -> None:
    created = world.ask("createKey", "admin").json()
    assert created["key"].startswith("cpk_")
    assert len(created["key"]) == 47
    listed = world.ask("listKeys", "admin")
    assert created["id"] in listed.text
    assert created["key"] not in listed.text
    with world.api.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    assert created["key"][4:] not in str(rows)
    assert "revoked_at" in listed.json()["data"][0]


BY_PROVIDER_ALONE = "/command-line"  # who has a session by a key may look at it, and gets no login
OPEN_PAGES = {"/sign-in", "/sign-out", "/sign-in/oidc", "/sign-in/oidc/callback", "/sign-in/tenant"}


def test_without_a_good_session_every_page_asks_for_a_key(world: World) -> None:
    for actor in ("nobody", "revoked", "expired", "nonsense", "broken"):
        for method, path in world.pages():
            answer = world.open(method, path, actor)
            if path in OPEN_PAGES:
                assert answer.status_code in {200, 303, 401}
            else:
                assert answer.status_code == 303, (actor, method, path)
                assert answer.headers["location"].startswith("/sign-in")
            assert not any(found in answer.text for found in world.ids.values())
    assert world.ask("getJob", "own").json()["status"] == "succeeded"


def test_pages_show_another_tenant_nothing(world: World) -> None:
    foreign = world.api.client.get(
        f"/submit?like={world.ids['done']}", headers={"Cookie": f"{COOKIE}={world.sessions['other']}"}
    )
    assert foreign.status_code == 404
    for method, path in world.pages():
        answer = world.open(method, path, "other")
        if "{job_id}" in path:
            assert answer.status_code == 404, (method, path)
        else:
            is_refused = path == "/tenants" or (method, path) == ("POST", BY_PROVIDER_ALONE)
            expected = {403} if is_refused else {200, 303, 401}
            assert answer.status_code in expected, (method, path)
        assert not any(world.ids[name] in answer.text for name in ("done", "failed", "queued", "webhook")), path
    for name, status in (("done", "succeeded"), ("failed", "failed"), ("queued", "queued")):
        headers = {"Authorization": f"Bearer {world.keys['own']}"}
        world.api.client.cookies.clear()
        assert world.api.client.get(f"/v1/jobs/{world.ids[name]}", headers=headers).json()["status"] == status


def test_a_scope_opens_its_pages_and_no_other(world: World) -> None:
    for method, path in world.pages():
        if path in OPEN_PAGES:
            continue
        for_operators = path == "/tenants"
        writes = path == "/browse" or (method == "POST" and path != BY_PROVIDER_ALONE)  # whoever submits looks for a folder
        reads = method == "GET" and not for_operators and not writes
        for actor, allowed in (("reader", reads), ("writer", writes), ("admin", for_operators)):
            status = world.open(method, path, actor).status_code
            assert (status != 403) == allowed, (method, path, actor, status)


@pytest.mark.long
def test_a_session_reads_of_the_api_what_pages_link_to_and_changes_nothing(world: World) -> None:
    world.api.client.cookies[COOKIE] = world.sessions["own"]
    for operation, (method, path) in world.operations().items():
        if operation in OPEN or operation in ADMIN_ONLY:
            continue
        status = world.ask(operation, "browser").status_code
        reads = method == "get" and not path.startswith("/hub")
        assert (status != 401) == reads, (operation, status)
