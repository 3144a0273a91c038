"""The documentation of a service: the site where it was built, a page that says so where not, and the browser of the API."""

from __future__ import annotations

import json
import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.web.documentation import INLINE_SCRIPTS, install_documentation


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    (folder / "guides").mkdir(parents=True)
    (folder / "index.html").write_text("<p>all pages</p>")
    (folder / "guides" / "data.html").write_text("<p>data</p>")
    (folder / INLINE_SCRIPTS).write_text(json.dumps(["aGFzaA=="]))
    (tmp_path / "secret").write_text("secret")
    return folder


@pytest.fixture
def built(site):
    app = FastAPI(docs_url=None)
    install_documentation(app, site)
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "words"), [("/docs/", "all pages"), ("/docs", "all pages"), ("/docs/guides/data.html", "data")]
)
def test_a_page_of_the_site_runs_no_script_but_its_own(built, path, words):
    answer = built.get(path)
    assert (answer.status_code, words in answer.text) == (200, True)
    fence = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in fence
    assert "script-src 'self' 'sha256-aGFzaA=='" in fence
    assert "unsafe" not in fence.partition("script-src")[2].partition(";")[0]


@pytest.mark.parametrize("path", ["/docs/../secret", "/docs/%2e%2e/secret", "/docs/guides/nothing.html"])
def test_nothing_but_the_site_is_served(built, path):
    assert built.get(path).status_code == 404


def test_without_a_site_a_page_says_how_to_build_it(api_on_sqlite):
    answer = api_on_sqlite.client.get("/docs/", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    if "make docs" not in answer.text:  # it was built in this checkout
        assert "Your first model" in answer.text


def test_the_browser_of_the_api_brings_all_its_files_and_reads_this_services_contract(api_on_sqlite):
    page = api_on_sqlite.client.get("/docs/api/")
    assert page.status_code == 200
    named = re.findall(r'(?:src|href)="([\w.-]+)"', page.text)
    assert {"swagger-ui-bundle.js", "swagger-ui.css", "openapi.json"} <= set(named)
    for name in named:
        assert api_on_sqlite.client.get(f"/docs/api/{name}").status_code == 200, name
    assert "http" not in re.sub(r'charset="utf-8"', "", page.text)
    assert api_on_sqlite.client.get("/docs/api/openapi.json").json() == api_on_sqlite.client.get("/openapi.json").json()


def test_strangers_may_read_it_where_keys_are_on(make_api):
    client = make_api("", auth=True).client
    assert client.get("/v1/jobs").status_code == 401
    assert [client.get(path).status_code for path in ("/docs/", "/docs/api/", "/docs/api/openapi.json")] == [200, 200, 200]
