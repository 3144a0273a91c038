"""``coppice login``: a person who is signed in on the page logs a command line in, that one alone, for a while."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.keys.records import Caller, Scope
from app.people.forms import proof_of
from app.people.models import person_sessions
from coppice import Client
from coppice.logins import place
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.contract.test_edges import listening
from tests.contract.test_sign_in import bearer, sign_in
from tests.oidc import ROLES, RunningProvider, provider

VERIFIER = "v" * 43
CHALLENGE = proof_of(f"cpl_{'A' * 20}{VERIFIER}").partition(" ")[2]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    with provider(tmp_path_factory.mktemp("provider")) as found:
        found.know("ada@example.org", "ml")
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, make_api: Callable[..., Api], running: RunningProvider) -> Api:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return make_api(url, **running.settings())


@pytest.fixture
def api(make_api: Callable[..., Api], running: RunningProvider) -> Api:
    return make_api("", **running.settings())


def code_for(api: Api, challenge: str) -> str:
    """Go on with the page, as the person whose session the client has; gives the code."""
    asked = api.client.get("/command-line", params={"challenge": challenge})
    assert "Go on only if you have just typed" in asked.text
    assert challenge in asked.text
    answer = api.client.post("/command-line", data={"challenge": challenge})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    (shown,) = re.findall(r'<code id="code">([A-Z2-7\-]{23})</code>', answer.text)
    return shown.replace("-", "")


def test_a_login_is_the_person_and_ends(guarded: Api, running: RunningProvider) -> None:
    api = guarded
    cookie = sign_in(api, running, "ada", "/command-line")
    login = f"cpl_{code_for(api, CHALLENGE)}{VERIFIER}"
    api.client.cookies.clear()
    mine = bearer(login)
    seen = api.client.get("/v1/session", headers=mine).json()
    assert (seen["by"], seen["name"], seen["tenant"], seen["role"]) == ("person", "Ada", "acme", "runner")
    assert api.client.post("/v1/jobs", json=api.body, headers=mine).status_code == 202
    assert_problem(api.client.get("/v1/keys", headers=mine), 403, "insufficient_scope")
    with api.database.read() as connection:
        rows = str(connection.execute(sa.select(person_sessions)).all())
    assert not any(part in rows for part in (login, login[4:24], VERIFIER, CHALLENGE, cookie))
    _key, admin = api.client.app.state.keys.create(owner="o", name="", scopes=frozenset(Scope), lives_s=None, caller=Caller())
    assert api.client.delete("/v1/session", headers=mine).status_code == 204
    assert "coppice login" in assert_problem(api.client.get("/v1/session", headers=mine), 401, "unauthenticated")["detail"]
    done = [(own["action"], own["person"]) for own in api.client.get("/v1/audit-events", headers=bearer(admin)).json()["data"]]
    ada = {"issuer": running.url, "subject": "ada@example.org", "name": "Ada"}
    wanted = ["person.signed_out", "job.submitted", "person.logged_in", "person.signed_in"]
    assert [own for own in done if own[1]] == [(action, ada) for action in wanted]


def test_a_code_is_of_use_to_one_command_line(api: Api, running: RunningProvider) -> None:
    cookie = sign_in(api, running, "ada")
    code = code_for(api, CHALLENGE)
    api.client.cookies.clear()
    other = "w" * 43
    for shown in (
        f"cpl_{code}{other}",
        f"cpl_{'A' * 20}{VERIFIER}",
        f"cpl_{code}{CHALLENGE}",
        f"cpl_{code}",
        cookie,
        f"cpo_{VERIFIER}",
    ):
        assert_problem(api.client.get("/v1/session", headers=bearer(shown)), 401, "unauthenticated")
    login = f"cpl_{code}{VERIFIER}"
    for cookies in (login, f"cpo_{code}{VERIFIER[:23]}"):
        answer = api.client.get("/v1/jobs", headers={"Cookie": f"coppice_session={cookies}"})
        assert_problem(answer, 401, "unauthenticated")
    assert api.client.get("/v1/session", headers=bearer(login)).status_code == 200


def test_only_the_person_s_own_browser_gives_codes(api: Api, running: RunningProvider) -> None:
    form = {"challenge": CHALLENGE}
    asked = api.client.get("/command-line", params=form, follow_redirects=False)
    assert asked.headers["location"] == f"/sign-in?next=%2Fcommand-line%3Fchallenge%3D{CHALLENGE}"
    assert api.client.post("/command-line", data=form, follow_redirects=False).headers["location"] == "/sign-in"
    sign_in(api, running, "ada")
    elsewhere = api.client.post("/command-line", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert_problem(elsewhere, 403, "cross_site")
    for wrong in ("", "x" * 42, "x" * 44, "<script>" + "x" * 35):
        assert api.client.post("/command-line", data={"challenge": wrong}).status_code == 403
        page = api.client.get("/command-line", params={"challenge": wrong}).text
        assert "Show the code" not in page
        assert "<script>x" not in page
    login = f"cpl_{code_for(api, CHALLENGE)}{VERIFIER}"
    api.client.cookies.clear()
    by_login = api.client.post("/command-line", data=form, headers=bearer(login), follow_redirects=False)
    assert by_login.headers["location"] == "/sign-in", "a login makes no further ones"
    _key, text = api.client.app.state.keys.create(owner="acme", name="", scopes=frozenset(Scope), lives_s=None, caller=Caller())
    assert api.client.post("/command-line", data=form, headers=bearer(text)).status_code == 403
    assert_problem(api.client.delete("/v1/session", headers=bearer(text)), 409, "no_login")
    assert api.client.get("/v1/session", headers=bearer(text)).json()["by"] == "key"


def test_what_takes_a_role_away_takes_it_from_logins(make_api: Callable[..., Api], running: RunningProvider) -> None:
    api = make_api("", **running.settings())
    sign_in(api, running, "ada")
    login = f"cpl_{code_for(api, CHALLENGE)}{VERIFIER}"
    without = json.dumps([own for own in ROLES if own["group"] != "ml"])
    later = make_api("", **running.settings(oidc_roles=without))
    assert_problem(later.client.get("/v1/session", headers=bearer(login)), 401, "unauthenticated")
    nobody = make_api("", auth=True, secret="s" * 40)
    assert_problem(nobody.client.get("/v1/session", headers=bearer(login)), 401, "unauthenticated")


def test_a_login_lasts_as_long_as_a_session(make_api: Callable[..., Api], running: RunningProvider) -> None:
    api = make_api("", **running.settings(oidc_session_s=60))
    sign_in(api, running, "ada")
    login = f"cpl_{code_for(api, CHALLENGE)}{VERIFIER}"
    with api.database.write() as connection:
        connection.execute(person_sessions.update().values(expires_at=person_sessions.c.expires_at - 61))
    assert_problem(api.client.get("/v1/session", headers=bearer(login)), 401, "unauthenticated")


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    with listening(api.client.app.state.settings) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("COPPICE_API_KEY", "COPPICE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config"


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    run = [sys.executable, "-m", "coppice.cli", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(run, text=True, env=os.environ | {"COLUMNS": "240"}, **pipes) as process:
        yield process


def test_the_command_line_logs_in_works_and_logs_out(api: Api, running: RunningProvider, url: str, home: Path) -> None:
    sign_in(api, running, "ada")
    with command("login", url) as process:
        said = ""
        while (found := re.search(r"challenge=([\w\-]{43})", said)) is None:
            line = process.stderr.readline()
            assert line, said
            said += line
        code = code_for(api, found.group(1)).lower()
        told, noted = process.communicate(f"nonsense\n{'b' * 20}\n {code[:10]}-{code[10:]} \n", timeout=60)
    assert process.returncode == 0, noted
    assert told.strip() == "logged in: Ada, for the tenant acme as runner"
    assert "four times five" in noted
    assert "not the code for this terminal" in noted
    kept = home / "coppice" / "logins.json"
    assert place() == kept
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with Client(url) as client:
        assert client.session().name == "Ada"
        assert client.list() == []
    _key, text = api.client.app.state.keys.create(
        owner="rival", name="", scopes=frozenset(Scope), lives_s=None, caller=Caller()
    )
    with Client(url, api_key=text) as client:
        assert client.session().tenant == "rival", "what is given goes first"
    login = json.loads(kept.read_text())[url]
    with command("logout", url) as process:
        assert process.communicate(timeout=60)[0] == f"logged out of {url}\n"
    assert json.loads(kept.read_text()) == {}
    assert_problem(api.client.get("/v1/session", headers=bearer(login)), 401, "unauthenticated")
    with command("logout", url) as process:
        assert "not logged in" in process.communicate(timeout=60)[0]


def test_a_service_without_keys_asks_for_no_login(api_on_sqlite: Api, home: Path) -> None:
    with listening(api_on_sqlite.client.app.state.settings) as port, command("login", f"http://127.0.0.1:{port}/") as process:
        assert "asks for no key" in process.communicate(timeout=60)[0]
    assert not home.exists()


def test_a_file_that_others_may_read_is_refused(home: Path) -> None:
    kept = home / "coppice" / "logins.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    kept.chmod(0o644)
    with command("jobs", "list", "--url", "http://127.0.0.1:9") as process:
        noted = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "chmod 600" in noted
    for text in ("[]", '{"a": 1}', "nonsense"):
        kept.write_text(text)
        kept.chmod(0o600)
        with command("jobs", "list", "--url", "http://127.0.0.1:9") as process:
            assert "delete it" in process.communicate(timeout=60)[1]
