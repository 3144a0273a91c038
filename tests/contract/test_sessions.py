"""Sessions of the page end on the server, and keys and sessions outlive the replacement of the server's secret."""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import pytest
import sqlalchemy as sa

from app.keys.models import api_keys, key_sessions
from app.keys.records import Caller, Scope, SecretUse
from app.keys.sessions import LIFETIME_S, MOST_OF_A_KEY, cookie_name
from tests.contract.conftest import Api

BOTH = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
COOKIE = cookie_name(secure=False)
FIRST, SECOND, THIRD = "a" * 40, "b" * 40, "c" * 40


@pytest.fixture(params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, make_api: Callable[..., Api]) -> Api:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return make_api(url, auth=True, secret=FIRST)


def new_key(api: Api, **changes: Any) -> tuple[str, str]:
    """Make a key; gives its id and its text."""
    given = {"owner": "acme", "name": "", "scopes": BOTH, "lives_s": None, "caller": Caller()} | changes
    key, text = api.client.app.state.keys.create(**given)
    return key.id, text


def sign_in(api: Api, text: str) -> str:
    """Sign in by the form; gives the cookie."""
    answer = api.client.post("/sign-in", data={"key": text, "next": "/submit"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/submit")
    return SimpleCookie(answer.headers["set-cookie"])[COOKIE].value


def is_in(api: Api, cookie: str) -> bool:
    api.client.cookies.clear()
    status = api.client.get("/", headers={"Cookie": f"{COOKIE}={cookie}"}, follow_redirects=False).status_code
    assert status in (200, 303)
    return status == 200


def count(api: Api, table: sa.Table) -> int:
    with api.database.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_signing_out_ends_the_session_for_a_copy_of_the_cookie_too(guarded: Api) -> None:
    api = guarded
    first = api.client.get("/compare?by=size", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/sign-in?next=%2Fcompare%3Fby%3Dsize")
    wrong = api.client.post("/sign-in", data={"key": "cpk_" + "A" * 43})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    _key, text = new_key(api)
    cookie = sign_in(api, text)
    assert is_in(api, cookie)
    api.client.cookies[COOKIE] = cookie
    assert api.client.get("/v1/jobs").status_code == 200, "pages link to the API's own files"
    assert api.client.post("/v1/jobs", json=api.body).status_code == 401, "but a cookie changes nothing there"
    other = sign_in(api, new_key(api)[1])
    api.client.cookies.clear()
    api.client.cookies[COOKIE] = other
    assert api.client.post("/sign-out", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert is_in(api, other)
    api.client.post("/sign-out", headers={"Cookie": f"{COOKIE}={other}"})
    assert not is_in(api, other), "a copy of the cookie is worth nothing"


def test_a_revoked_or_expired_key_ends_all_its_sessions(guarded: Api) -> None:
    key, text = new_key(guarded)
    cookies = []
    for _ in range(2):  # two browsers
        guarded.client.cookies.clear()
        cookies.append(sign_in(guarded, text))
    assert all(is_in(guarded, cookie) for cookie in cookies)
    guarded.client.app.state.keys.revoke(key, caller=Caller())
    assert not any(is_in(guarded, cookie) for cookie in cookies)
    assert count(guarded, key_sessions) == 0
    key, text = new_key(guarded, lives_s=3600)
    cookie = sign_in(guarded, text)
    with guarded.database.write() as connection:
        connection.execute(api_keys.update().where(api_keys.c.id == key).values(expires_at=1))
    assert not is_in(guarded, cookie)


def test_every_sign_in_is_a_new_session_and_ends_the_one_before(guarded: Api) -> None:
    _key, text = new_key(guarded)
    planted = sign_in(guarded, text)
    assert guarded.client.cookies[COOKIE] == planted
    mine = sign_in(guarded, text)
    assert mine != planted
    assert not is_in(guarded, planted), "who knows the cookie of before is not signed in"
    assert is_in(guarded, mine)


def test_sessions_that_are_old_or_none_of_ours_are_none(guarded: Api) -> None:
    key, text = new_key(guarded)
    cookie = sign_in(guarded, text)
    for forged in ("", key, text, cookie[:-1], cookie + "x", "cps_" + "A" * 43, "a.b.c", "%00", "'; DROP TABLE"):
        assert not is_in(guarded, forged)
    with guarded.database.read() as connection:
        assert cookie[4:] not in str(connection.execute(sa.select(key_sessions)).all())
    with guarded.database.write() as connection:
        connection.execute(key_sessions.update().values(expires_at=1))
    assert not is_in(guarded, cookie)
    sign_in(guarded, text)
    assert count(guarded, key_sessions) == 1, "old ones are swept when one begins"


def test_a_key_has_only_so_many_sessions(guarded: Api) -> None:
    keys = guarded.client.app.state.keys
    key = keys.recognise(new_key(guarded)[1])
    oldest, *_others = [keys.begin_session(key) for _ in range(MOST_OF_A_KEY)]
    assert keys.of_session(oldest) == key
    newest = keys.begin_session(key)
    assert (keys.of_session(oldest), keys.of_session(newest)) == (None, key)
    assert count(guarded, key_sessions) == MOST_OF_A_KEY


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, secret=FIRST)
    _key, text = new_key(api)
    answer = api.client.post("/sign-in", data={"key": text}, follow_redirects=False)
    attributes = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=strict", "path=/", f"max-age={LIFETIME_S}"} <= attributes
    assert "secure" not in attributes
    secure = api.client.post("https://testserver/sign-in", data={"key": text}, follow_redirects=False).headers["set-cookie"]
    assert secure.startswith("__Host-coppice_session=")
    assert {"secure", "path=/"} <= {part.strip().lower() for part in secure.split(";")}
    assert "domain" not in secure.lower()
    api.client.cookies.clear()
    value = secure.partition("=")[2].partition(";")[0]
    for name, status in ((COOKIE, 303), ("__Host-coppice_session", 200)):
        page = api.client.get("https://testserver/", headers={"Cookie": f"{name}={value}"}, follow_redirects=False)
        assert page.status_code == status, "over HTTPS a cookie that a neighbouring name could have set is none"


def test_what_pages_and_answers_say_of_themselves(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, secret=FIRST)
    page = api.client.get("/sign-in").headers
    assert "frame-ancestors 'none'" in page["content-security-policy"]
    assert (page["referrer-policy"], page["cache-control"]) == ("same-origin", "private, no-store")
    headers = {"Authorization": f"Bearer {new_key(api)[1]}"}
    for path in ("/v1/jobs", "/v1/jobs/none", "/healthz", "/openapi.json", "/static/style.css", "/sign-in"):
        assert api.client.get(path, headers=headers).headers["x-content-type-options"] == "nosniff", path
    assert api.client.get("/v1/jobs", headers=headers).headers["cache-control"] == "private, no-cache"
    assert api.client.get("/v1/jobs").headers["cache-control"] == "private, no-cache"


@pytest.mark.long
def test_keys_and_sessions_outlive_a_new_secret(make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_api("", auth=True, secret=FIRST)
    used, unused = new_key(old)[1], new_key(old)[1]
    cookie = sign_in(old, used)
    assert old.client.app.state.keys.secret_use() == SecretUse(keys=2, keys_under_it=2)
    # Where processes are replaced one after the other, those that still have the old secret know the new one already.
    before = make_api("", auth=True, secret=FIRST, secret_old=(SECOND,))
    during = make_api("", auth=True, secret=SECOND, secret_old=(FIRST, THIRD))
    assert during.client.app.state.keys.secret_use() == SecretUse(keys=2, keys_under_it=0)
    for api in (before, during, before, during):
        assert is_in(api, cookie)
        assert api.client.get("/v1/jobs", headers={"Authorization": f"Bearer {used}"}).status_code == 200
    assert during.client.app.state.keys.secret_use() == SecretUse(keys=2, keys_under_it=0), "it is moved once a minute"
    monkeypatch.setattr("app.keys.service._MOVE_EVERY_S", -1)
    assert during.client.get("/v1/jobs", headers={"Authorization": f"Bearer {used}"}).status_code == 200
    assert during.client.app.state.keys.secret_use() == SecretUse(keys=2, keys_under_it=1)
    fresh = sign_in(during, used)
    after = make_api("", auth=True, secret=SECOND)
    assert after.client.get("/v1/jobs", headers={"Authorization": f"Bearer {used}"}).status_code == 200
    assert after.client.get("/v1/jobs", headers={"Authorization": f"Bearer {unused}"}).status_code == 401, "nobody used it"
    assert (is_in(after, fresh), is_in(after, cookie)) == (True, False)
    before.client.cookies.clear()
    before.client.post("/sign-out", headers={"Cookie": f"{COOKIE}={fresh}"})
    assert not is_in(after, fresh), "a session ends under either secret"


def test_keys_of_an_earlier_version_are_noted_when_they_are_used(guarded: Api) -> None:
    _key, text = new_key(guarded)
    with guarded.database.write() as connection:
        connection.execute(api_keys.update().values(secret_id=None))
    keys = guarded.client.app.state.keys
    assert keys.secret_use() == SecretUse(keys=1, keys_under_it=0)
    assert keys.recognise(text) is not None
    assert keys.secret_use() == SecretUse(keys=1, keys_under_it=1)


def test_a_key_is_recognised_though_it_cannot_be_hashed_anew(
    make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    _key, text = new_key(make_api("", auth=True, secret=FIRST))
    api = make_api("", auth=True, secret=SECOND, secret_old=(FIRST,))
    keys = api.client.app.state.keys
    monkeypatch.setattr("app.db._SQLITE_BUSY_TIMEOUT_MS", 1)
    api.client.app.state.database.engine.dispose()
    with api.database.write():  # somebody else writes, for long
        assert keys.recognise(text) is not None
    assert keys.secret_use() == SecretUse(keys=1, keys_under_it=0)
