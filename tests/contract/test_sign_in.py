"""People sign in by a real provider: the flow, what tokens count, roles and tenants, and everything that may be wrong of it."""

from __future__ import annotations

import base64
import hmac
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import RSAKey

from app.audit.models import people
from app.keys.records import Caller, Scope
from app.keys.sessions import cookie_name
from app.people import provider as provider_module
from app.people.models import person_sessions, sign_ins
from app.people.problems import ProviderAway
from app.settings import SettingsInvalid
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.oidc import CLIENT, ROLES, RunningProvider, provider
from tests.servers import free_port

COOKIE = cookie_name(secure=False)
BROWSER = "coppice_sign_in"
CALLBACK = "/sign-in/oidc/callback"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    with provider(tmp_path_factory.mktemp("provider")) as found:
        found.know("ada@example.org", "ml", "unrelated")
        found.know("rhea@example.org", "everybody")
        found.know("lee@example.org", "leads")
        found.know("olga@example.org", "ops")
        found.know("max@example.org", "guests", "ml")
        found.know("nobody@example.org", "unrelated")
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, make_api: Callable[..., Api], running: RunningProvider) -> Api:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return make_api(url, **running.settings())


@pytest.fixture
def api(make_api: Callable[..., Api], running: RunningProvider) -> Api:
    """For what has nothing to do with the database."""
    return make_api("", **running.settings())


def begin(api: Api, wanted: str = "/") -> str:
    """Press the button; gives the provider's address."""
    answer = api.client.get("/sign-in/oidc", params={"next": wanted}, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def come_back(api: Api, address: str) -> httpx2.Response:
    parts = urlsplit(address)
    assert parts.path == CALLBACK
    return api.client.get(f"{parts.path}?{parts.query}", follow_redirects=False)


def sign_in(api: Api, running: RunningProvider, who: str, wanted: str = "/") -> str:
    """Go the whole way; gives the session's cookie."""
    api.client.cookies.clear()
    answer = come_back(api, running.agree(begin(api, wanted), f"{who}@example.org"))
    assert answer.status_code == 200, answer.text
    assert f"url={wanted}" in answer.text
    return next(found[COOKIE].value for raw in answer.headers.get_list("set-cookie") if COOKIE in (found := SimpleCookie(raw)))


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): value for name, value in more.items()}


def test_a_person_signs_in_works_by_their_role_and_signs_out(guarded: Api, running: RunningProvider) -> None:
    api = guarded
    assert "Sign in with Example" in api.client.get("/sign-in").text
    asked = parse_qs(urlsplit(begin(api)).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{api.client.base_url}{CALLBACK}"]
    assert asked["scope"] == ["openid profile email"]
    assert all(len(asked[name][0]) >= 43 for name in ("state", "nonce", "code_challenge"))
    cookie = sign_in(api, running, "ada", "/submit")
    shown = api.client.get("/submit").text
    assert "Ada · acme · runner" in shown
    assert api.client.get("/v1/jobs").status_code == 200
    assert api.client.post("/v1/jobs", json=api.body).status_code == 401, "a cookie changes nothing on the API"
    with api.database.read() as connection:
        rows = connection.execute(sa.select(person_sessions)).all()
        assert cookie not in str(rows)
        assert len(rows) == 1
        assert connection.scalar(sa.select(sa.func.count()).select_from(sign_ins)) == 1, "the first attempt is still open"
    out = api.client.post("/sign-out", follow_redirects=False)
    assert f"{running.url}/oauth2/end_session?client_id={CLIENT}" in out.text
    api.client.cookies.clear()
    again = api.client.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}, follow_redirects=False)
    assert again.status_code == 303, "a copy of the cookie is worth nothing"
    _key, admin = api.client.app.state.keys.create(owner="o", name="", scopes=frozenset(Scope), lives_s=None, caller=Caller())
    events = api.client.get("/v1/audit-events", headers=bearer(admin)).json()["data"]
    done = {event["action"]: event["person"] for event in events}
    assert done["person.signed_in"] == {"issuer": running.url, "subject": "ada@example.org", "name": "Ada"}
    assert done["person.signed_out"] == done["person.signed_in"]
    assert done["key.created"] is None
    lines = api.client.get("/v1/audit-events/export", headers=bearer(admin)).text.splitlines()
    assert [json.loads(line).get("person", {}).get("subject") for line in lines] == ["ada@example.org"] * 2 + [None]
    assert "person" not in json.loads(lines[-1]), "lines of keys are what they were"


@pytest.mark.long
def test_every_role_may_do_what_it_says_and_is_told_what_it_lacks(api: Api, running: RunningProvider) -> None:
    job = {"json": api.body}
    asks = {
        "read": ("GET", "/v1/jobs", {}),
        "write": ("POST", "/v1/jobs", job),
        "keys": ("GET", "/v1/keys", {}),
        "make": ("POST", "/v1/keys", {"json": {"tenant": "acme", "scopes": ["jobs:read"]}}),
        "operate": ("GET", "/v1/tenants", {}),
    }
    may = {"rhea": {"read"}, "ada": {"read", "write"}, "lee": {"read", "write", "keys", "make"}, "olga": set(asks)}
    needs = {"write": "runner", "keys": "admin", "make": "admin", "operate": "operator"}
    for who, allowed in may.items():
        token = running.token(f"{who}@example.org")
        for name, (method, path, more) in asks.items():
            answer = api.client.request(method, path, headers=bearer(token), **more)
            if name in allowed:
                assert answer.status_code in (200, 201, 202), (who, name, answer.text)
            else:
                problem = assert_problem(answer, 403, "insufficient_scope")
                assert f"needs the role {needs[name]}; yours for acme is" in problem["detail"]
    page = {who: api.client.get("/", headers={"Cookie": f"{COOKIE}={sign_in(api, running, who)}"}).text for who in may}
    assert 'href="/submit"' in page["ada"]
    assert 'href="/submit"' not in page["rhea"]
    assert 'href="/tenants"' in page["olga"]
    assert 'href="/tenants"' not in page["lee"]


def test_who_keeps_a_tenant_keeps_its_keys_and_no_others(api: Api, running: RunningProvider) -> None:
    keys = api.client.app.state.keys
    other, _text = keys.create(owner="rival", name="", scopes=frozenset({Scope.JOBS_READ}), lives_s=None, caller=Caller())
    lead = bearer(running.token("lee@example.org"))
    made = api.client.post("/v1/keys", headers=lead, json={"tenant": "acme"}).json()
    assert [key["id"] for key in api.client.get("/v1/keys", headers=lead).json()["data"]] == [made["id"]]
    assert_problem(api.client.get("/v1/keys", headers=lead, params={"tenant": "rival"}), 403, "insufficient_scope")
    assert_problem(api.client.post("/v1/keys", headers=lead, json={"tenant": "rival"}), 403, "insufficient_scope")
    assert_problem(api.client.delete(f"/v1/keys/{other.id}", headers=lead), 404, "key_not_found")
    for beyond in ("admin", "jobs:priority"):
        body = {"tenant": "acme", "scopes": ["jobs:read", beyond]}
        assert_problem(api.client.post("/v1/keys", headers=lead, json=body), 403, "insufficient_scope")
    events = api.client.get("/v1/audit-events", headers=lead).json()["data"]
    assert {event["tenant"] for event in events} == {"acme"}
    assert events[0]["person"]["subject"] == "lee@example.org"
    assert_problem(api.client.get("/v1/audit-events/export", headers=lead), 403, "insufficient_scope")
    assert api.client.delete(f"/v1/keys/{made['id']}", headers=lead).status_code == 200


def test_of_several_tenants_a_person_says_which(api: Api, running: RunningProvider) -> None:
    token = running.token("max@example.org")
    problem = assert_problem(api.client.get("/v1/jobs", headers=bearer(token)), 400, "tenant_unclear")
    assert "roles for acme, rival; say for which by the header Coppice-Tenant" in problem["detail"]
    assert_problem(api.client.get("/v1/jobs", headers=bearer(token, Coppice_Tenant="ops")), 400, "tenant_unclear")
    assert api.client.post("/v1/jobs", headers=bearer(token, Coppice_Tenant="acme"), json=api.body).status_code == 202
    assert len(api.client.get("/v1/jobs", headers=bearer(token, Coppice_Tenant="acme")).json()["data"]) == 1
    assert api.client.get("/v1/jobs", headers=bearer(token, Coppice_Tenant="rival")).json()["data"] == []
    assert_problem(
        api.client.post("/v1/jobs", headers=bearer(token, Coppice_Tenant="rival"), json=api.body), 403, "insufficient_scope"
    )
    sign_in(api, running, "max")
    assert "Max · acme · runner" in api.client.get("/").text
    assert api.client.post("/sign-in/tenant", data={"tenant": "rival"}, follow_redirects=False).status_code == 303
    assert "Max · rival · reader" in api.client.get("/").text
    assert api.client.post("/sign-in/tenant", data={"tenant": "ops"}, follow_redirects=False).status_code == 403
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert api.client.post("/sign-in/tenant", data={"tenant": "acme"}, headers=cross).status_code == 403


def test_a_person_without_a_role_gets_a_page_that_says_so(api: Api, running: RunningProvider) -> None:
    api.client.cookies.clear()
    answer = come_back(api, running.agree(begin(api), "nobody@example.org"))
    assert answer.status_code == 403
    assert "You have no role here" in answer.text
    assert "the provider tells of unrelated" in answer.text
    assert "end_session" in answer.text
    assert COOKIE not in api.client.cookies
    problem = assert_problem(api.client.get("/v1/jobs", headers=bearer(running.token("nobody@example.org"))), 403, "no_role")
    assert "no group of theirs has a role here" in problem["detail"]


def test_an_answer_counts_once_in_the_browser_that_asked(guarded: Api, running: RunningProvider) -> None:
    api = guarded
    api.client.cookies.clear()
    back = running.agree(begin(api), "ada@example.org")
    mine = api.client.cookies[BROWSER]
    api.client.cookies.clear()
    assert come_back(api, back).status_code == 400, "another browser is sent the answer"
    api.client.cookies[BROWSER] = "A" * 43
    assert come_back(api, back).status_code == 400
    api.client.cookies[BROWSER] = mine
    assert come_back(api, back).status_code == 200
    replayed = come_back(api, back)
    assert replayed.status_code == 400
    assert "was used already" in replayed.text
    assert come_back(api, f"{CALLBACK}?state=nonsense&code=x").status_code == 400
    assert come_back(api, CALLBACK).status_code == 400
    late = running.agree(begin(api), "ada@example.org")
    with api.database.write() as connection:
        connection.execute(sign_ins.update().values(expires_at=1))
    assert come_back(api, late).status_code == 400
    mixed_up = running.agree(begin(api), "ada@example.org") + "&iss=https://other.example"
    assert come_back(api, mixed_up).status_code == 400
    changed = parse_qs(urlsplit(running.agree(begin(api), "ada@example.org")).query)
    refused = come_back(api, f"{CALLBACK}?state={changed['state'][0]}&code=made-up")
    assert refused.status_code == 403
    assert "does not take this sign-in" in refused.text
    denied = come_back(api, running.agree(begin(api), "ada@example.org", action="deny"))
    assert (denied.status_code, "did not sign you in" in denied.text) in ((403, True), (400, False))


def test_an_answer_with_another_s_code_or_nonce_signs_nobody_in(api: Api, running: RunningProvider) -> None:
    """A code that was made for another sign-in of this client is tied to the other's PKCE challenge and nonce."""
    theirs = parse_qs(urlsplit(running.agree(begin(api), "olga@example.org")).query)["code"][0]
    mine = parse_qs(urlsplit(begin(api)).query)["state"][0]
    answer = come_back(api, f"{CALLBACK}?state={mine}&code={theirs}")
    assert answer.status_code == 403
    assert COOKIE not in api.client.cookies


def test_no_page_to_go_to_leads_elsewhere(api: Api, running: RunningProvider) -> None:
    for bad in ("https://evil.example/", "//evil.example", "/\\evil.example", "/%09/evil.example\t", "javascript:alert(1)"):
        answer = come_back(api, running.agree(begin(api, bad), "ada@example.org"))
        assert answer.status_code == 200
        assert 'content="0;url=/"' in answer.text, bad
        assert "evil" not in answer.text


def test_a_new_sign_in_ends_the_session_before_it(api: Api, running: RunningProvider) -> None:
    first = sign_in(api, running, "ada")
    come_back(api, running.agree(begin(api), "rhea@example.org"))
    assert "Rhea · acme · reader" in api.client.get("/").text
    api.client.cookies.clear()
    assert api.client.get("/", headers={"Cookie": f"{COOKIE}={first}"}, follow_redirects=False).status_code == 303


def signed_with_the_public_key(body: str, public: dict[str, str]) -> str:
    """Take the provider's public key for the secret of HS256, as anybody could (RFC 8725, 2.1)."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": public["kid"]}).encode()).rstrip(b"=").decode()
    secret = RSAKey.import_key(public).as_pem()
    digest = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_tokens_that_do_not_count(api: Api, running: RunningProvider, tmp_path: Path) -> None:
    good = running.token("ada@example.org")
    assert api.client.get("/v1/jobs", headers=bearer(good)).status_code == 200
    claims = jwt.decode(good, RSAKey.import_key(httpx2.get(f"{running.url}/jwks").json()["keys"][0])).claims
    public = httpx2.get(f"{running.url}/jwks").json()["keys"][0]
    own = RSAKey.generate_key(2048)
    head, body, signature = good.split(".")
    wrong = {
        "another audience": running.token("ada@example.org", client="another-service"),
        "the token is not signed by a key pair (RS256": f"eyJhbGciOiJub25lIn0.{body}.",
        "is not signed by a key pair": signed_with_the_public_key(body, public),
        "signature is wrong": jwt.encode({"alg": "RS256", "kid": public["kid"]}, claims, own),
        "no key of the provider's": jwt.encode({"alg": "RS256", "kid": "made-up"}, claims, own),
        "signature is wrong ": f"{head}.{body}.{signature[:-8]}AAAAAAAA",
        "cannot be read": "ey.e.y",
        "longer than": f"{head}.{'A' * 20_000}.{signature}",
    }
    for says, token in wrong.items():
        answer = api.client.get("/v1/jobs", headers=bearer(token))
        status = answer.status_code
        assert status in (401, 431), (says, answer.text)
        if status == 401:
            assert says.strip() in assert_problem(answer, 401, "unauthenticated")["detail"], says
            assert answer.headers["www-authenticate"] == 'Bearer realm="coppice", error="invalid_token"'
    with provider(tmp_path / "other") as other:
        other.know("ada@example.org", "ops")
        answer = api.client.get("/v1/jobs", headers=bearer(other.token("ada@example.org")))
        assert_problem(answer, 401, "unauthenticated")
    assert api.client.get("/v1/jobs", headers=bearer(running.token("ada@example.org", name="access_token"))).status_code == 401


def test_an_expired_token_is_told_so_and_clocks_may_differ(make_api: Callable[..., Api], tmp_path: Path) -> None:
    with provider(tmp_path / "short", lives_s=1) as short:
        short.know("ada@example.org", "ml")
        strict, lenient = make_api("", **short.settings(oidc_clock_skew_s=0)), make_api("", **short.settings())
        token = short.token("ada@example.org")
        time.sleep(2.1)
        problem = assert_problem(strict.client.get("/v1/jobs", headers=bearer(token)), 401, "unauthenticated")
        assert "the token has expired" in problem["detail"]
        assert lenient.client.get("/v1/jobs", headers=bearer(token)).status_code == 200


@pytest.mark.parametrize("names_keys", [True, False])
@pytest.mark.long
def test_a_token_by_a_new_key_of_the_provider_counts(
    make_api: Callable[..., Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_keys: bool
) -> None:
    monkeypatch.setattr(provider_module, "_LOOK_FOR_KEY_S", 4)
    with provider(tmp_path / "rotating", names_keys=names_keys) as rotating:
        rotating.know("ada@example.org", "ml")
        api = make_api("", **rotating.settings())
        before = rotating.token("ada@example.org")
        assert api.client.get("/v1/jobs", headers=bearer(before)).status_code == 200
        httpx2.post(f"{rotating.url}/new-key").raise_for_status()
        after = rotating.token("ada@example.org")
        assert api.client.get("/v1/jobs", headers=bearer(after)).status_code == 401, "asked for again only after a moment"
        time.sleep(4.1)
        assert api.client.get("/v1/jobs", headers=bearer(after)).status_code == 200
        time.sleep(4.1)
        assert api.client.get("/v1/jobs", headers=bearer(before)).status_code == 401, "the old key was withdrawn"


@pytest.mark.long
def test_without_the_provider_keys_go_on_and_the_page_says_so(
    make_api: Callable[..., Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "_AGAIN_S", 0.2)
    with provider(tmp_path / "late") as late:
        late.know("ada@example.org", "ml")
        token = late.token("ada@example.org")
        late.server.stop()
        api = make_api("", **late.settings())
        _key, key = api.client.app.state.keys.create(
            owner="acme", name="", scopes=frozenset({Scope.JOBS_READ}), lives_s=None, caller=Caller()
        )
        assert api.client.get("/v1/jobs", headers=bearer(key)).status_code == 200
        ready = api.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"]["sign_in"] == "ProviderAway"
        page = api.client.get("/sign-in/oidc")
        assert page.status_code == 503
        assert "Example cannot be reached for a sign-in now; API keys work" in page.text
        answer = api.client.get("/v1/jobs", headers=bearer(token))
        assert_problem(answer, 503, "sign_in_unavailable")
        assert answer.headers["retry-after"] == "5"
        late.server.start()  # with a key of its own, as its state is in its memory
        time.sleep(0.3)
        late.know("ada@example.org", "ml")
        assert api.client.get("/readyz").json()["checks"]["sign_in"] == "ok"
        cookie = sign_in(api, late, "ada")
        token = late.token("ada@example.org")
        assert api.client.get("/v1/jobs", headers=bearer(token)).status_code == 200
        late.server.stop()
        assert api.client.get("/v1/jobs", headers=bearer(token)).status_code == 200, "its keys are known"
        assert api.client.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}, follow_redirects=False).status_code == 200
        back = f"{CALLBACK}?state={parse_qs(urlsplit(begin(api)).query)['state'][0]}&code=x"
        assert come_back(api, back).status_code == 503
        assert api.client.post("/sign-out", follow_redirects=False).status_code in (200, 303)


@pytest.mark.long
def test_a_provider_that_hangs_holds_up_nobody_whom_it_need_not(
    make_api: Callable[..., Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with provider(tmp_path / "hanging") as hanging:
        hanging.know("ada@example.org", "ml")
        api = make_api("", **hanging.settings())
        token = hanging.token("ada@example.org")
        assert api.client.get("/v1/jobs", headers=bearer(token)).status_code == 200
        port = int(hanging.url.rpartition(":")[2])
        hanging.server.stop()
        monkeypatch.setattr(provider_module, "_FRESH_S", 0.0)
        monkeypatch.setattr(provider_module, "_AGAIN_S", 0.0)
        assert api.client.get("/v1/jobs", headers=bearer(token)).status_code == 200, "it is away, and its keys are known"
        with socket.create_server(("127.0.0.1", port), backlog=64), ThreadPoolExecutor(1) as pool:
            first = pool.submit(api.client.app.state.people.check)
            time.sleep(0.5)
            begun = time.monotonic()
            assert api.client.get("/v1/jobs", headers=bearer(token)).status_code == 200
            assert time.monotonic() - begun < 3, "one waits for the provider, and not this one"
            with pytest.raises(ProviderAway):
                first.result(30)


def test_a_provider_that_is_another_or_none_is_not_asked_to_sign_in(
    make_api: Callable[..., Api], running: RunningProvider
) -> None:
    other_name = running.url.replace("127.0.0.1", "localhost")
    for issuer in (f"{other_name}/", f"http://127.0.0.1:{free_port()}", f"{running.url}/jwks"):
        api = make_api("", **running.settings(oidc_issuer=issuer))
        assert api.client.get("/sign-in/oidc").status_code == 503, issuer


def test_groups_may_stand_deep_in_the_claims_or_be_one_word(make_api: Callable[..., Api], running: RunningProvider) -> None:
    running.know("deep@example.org", realm_access={"roles": ["ml"]}, groups="leads")
    token = running.token("deep@example.org")
    deep = make_api("", **running.settings(oidc_groups_claim="realm_access.roles"))
    assert deep.client.post("/v1/jobs", headers=bearer(token), json=deep.body).status_code == 202
    plain = make_api("", **running.settings())
    assert plain.client.get("/v1/keys", headers=bearer(token)).status_code == 200
    none = make_api("", **running.settings(oidc_groups_claim="realm_access.roles.more"))
    assert_problem(none.client.get("/v1/jobs", headers=bearer(token)), 403, "no_role")


def test_taking_a_role_away_ends_what_sessions_may_do(make_api: Callable[..., Api], running: RunningProvider) -> None:
    first = make_api("", **running.settings())
    cookie = sign_in(first, running, "ada")
    less = make_api("", **running.settings(oidc_roles=json.dumps([entry for entry in ROLES if entry["group"] != "ml"])))
    assert less.client.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}, follow_redirects=False).status_code == 303
    with first.database.read() as connection:
        assert connection.scalar(sa.select(people.c.subject)) == "ada@example.org"


def test_files_of_secret_and_roles_are_read(make_api: Callable[..., Api], running: RunningProvider, tmp_path: Path) -> None:
    secret, roles = tmp_path / "secret", tmp_path / "roles.json"
    secret.write_text("not so secret\n")
    roles.write_text(json.dumps(ROLES))
    api = make_api("", **running.settings(oidc_client_secret="", oidc_client_secret_file=secret, oidc_roles=str(roles)))
    sign_in(api, running, "ada")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"oidc_roles": "[]"}, "names no group"),
        ({"oidc_roles": "{"}, "is no JSON"),
        ({"oidc_roles": '[{"group": "a", "tenant": "b", "role": "boss"}]'}, "'reader', 'runner', 'admin' or 'operator'"),
        ({"oidc_roles": '[{"group": "a", "tenant": "b c", "role": "reader"}]'}, "tenant"),
        ({"oidc_roles": "/no/such/file"}, "cannot be read"),
        ({"oidc_client_secret": "", "oidc_client_secret_file": Path("/no/such/file")}, "cannot be read"),
    ],
)
def test_settings_that_cannot_be_are_said_at_the_start(
    make_api: Callable[..., Api], running: RunningProvider, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(SettingsInvalid, match="COPPICE_OIDC_") as refused:
        make_api("", **running.settings(**changes))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"auth": False}, "needs COPPICE_AUTH"),
        ({"oidc_issuer": "http://login.example.org"}, "https://"),
        ({"oidc_issuer": "login.example.org"}, "must be an address"),
        ({"oidc_client_id": ""}, "COPPICE_OIDC_CLIENT_ID is needed"),
        ({"oidc_roles": ""}, "COPPICE_OIDC_ROLES is needed"),
        ({"oidc_scopes": "profile"}, "openid"),
        ({"oidc_client_secret_file": Path("x")}, "set one of them"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    make_api: Callable[..., Api], running: RunningProvider, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        make_api("", **running.settings(**changes))


def test_a_token_where_nobody_signs_in_by_a_provider_is_told_so(make_api: Callable[..., Api], running: RunningProvider) -> None:
    api = make_api("", auth=True, secret="s" * 40)
    problem = assert_problem(
        api.client.get("/v1/jobs", headers=bearer(running.token("ada@example.org"))), 401, "unauthenticated"
    )
    assert "people do not sign in by a provider here" in problem["detail"]
    assert api.client.get("/sign-in/oidc", follow_redirects=False).headers["location"] == "/sign-in"
    assert "Sign in with" not in api.client.get("/sign-in").text


def test_every_operation_of_the_document_says_the_scope_that_it_needs(api: Api) -> None:
    paths = api.client.get("/openapi.json").json()["paths"]
    for path, found in paths.items():
        for operation in found.values():
            said = operation.get("security")
            if path in ("/healthz", "/readyz"):
                assert said == []
            else:
                scopes = {scope for one in said for scope in one["apiKey"]}
                assert scopes, operation["operationId"]
                assert scopes <= set(Scope)
