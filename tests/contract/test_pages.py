"""The dashboard without a browser: what pages say, whom they let in, and what they make of bad input."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.jobs.models import jobs as jobs_table
from app.jobs.records import JobError
from app.keys.records import Caller, Scope
from app.web.formats import ago, count, decimal, percent, ratio, size, span, times
from app.web.plots import Datum, scatter
from tests.contract.conftest import Api

BOTH = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
PAGES = ("/", "/submit", "/compare", "/jobs/{id}")
MARKUP = "<script>alert(1)</script>"
NAN = float("nan")


def signed_in(api: Api, *, owner: str = "acme", scopes: frozenset[Scope] = BOTH) -> str:
    """Sign in by the form; gives the id of the key."""
    key, text = api.client.app.state.keys.create(owner=owner, name="", scopes=scopes, lives_s=None, caller=Caller())
    answer = api.client.post("/sign-in", data={"key": text, "next": "/submit"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/submit")
    return key.id


def test_the_list_shows_jobs_and_filters_them(api: Api) -> None:
    assert "Nothing has been pruned here yet" in api.client.get("/").text
    done, waiting = api.submit(), api.submit(method="magnitude")
    api.succeed()
    page = api.client.get("/").text
    assert f'href="/jobs/{done}"' in page
    assert "2.00×" in page
    assert "accuracy 0.890" in page
    for query, shown in (
        ("?status=succeeded", {done}),
        ("?status=queued", {waiting}),
        ("?method=magnitude", {waiting}),
        (f"?model={Path(api.body['model']).name}", {done, waiting}),
        (f"?model={api.body['model']}&method=fisher-cg", {done}),
        ("?model=none", set()),
        ("?model=%25", set()),
        ("?status=nonsense", {done, waiting}),
    ):
        found = set(re.findall(r'href="/jobs/(job_\w+)"', api.client.get(f"/{query}").text))
        assert found == shown, query


def test_pages_of_a_long_list_go_by_cursor(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    first = api.submit()
    with api.database.write() as connection:
        row = dict(connection.execute(sa.select(jobs_table)).mappings().one())
        rows = [row | {"id": f"job_{n:032x}", "created_at": row["created_at"] + n} for n in range(1, 10_000)]
        connection.execute(jobs_table.insert(), rows)
    page = api.client.get("/").text
    assert "10,000" in page
    assert len(re.findall(r'href="/jobs/job_', page)) == 25
    following = unescape(re.search(r'rel="next" href="([^"]+)"', page)[1])
    older = api.client.get(following).text
    assert len(re.findall(r'href="/jobs/job_', older)) == 25
    assert not set(re.findall(r"/jobs/(job_\w+)", page)) & set(re.findall(r"/jobs/(job_\w+)", older))
    last = api.client.get(f"/?after=job_{1:032x}").text
    assert re.findall(r'href="/jobs/(job_\w+)"', last) == [first]
    assert 'rel="next"' not in last
    assert api.client.get("/?after=job_none").status_code == 422


def test_a_job_page_at_every_moment_of_a_job(api: Api) -> None:
    job = api.submit(metadata={"run": "7"})
    waiting = api.client.get(f"/jobs/{job}").text
    assert "Waiting for a worker" in waiting
    assert f'action="/jobs/{job}/cancel"' in waiting
    api.claim()
    assert "Starting." in api.client.get(f"/jobs/{job}").text, "a job without progress or metrics has a page"
    other = api.submit()
    api.succeed()
    done = api.client.get(f"/jobs/{other}").text
    for said in ("2.00×", "98.9%", "the target is met", "model.safetensors", "HF_ENDPOINT", f"jobs/{other}", "1 of 12"):
        assert said in done, said
    assert "/cancel" not in done
    failing = api.submit()
    api.fail(JobError("target_missed", "too <coarse>", "target.keep"), with_files=True)
    failed = api.client.get(f"/jobs/{failing}").text
    assert "too &lt;coarse&gt;" in failed
    assert f'action="/jobs/{failing}/retry"' in failed
    answer = api.client.post(f"/jobs/{failing}/retry", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{failing}")
    assert "Tried again" in api.client.get(f"/jobs/{failing}").text
    assert api.client.post(f"/jobs/{failing}/cancel").status_code == 200
    conflict = api.client.post(f"/jobs/{failing}/retry")
    assert (conflict.status_code, conflict.headers["content-type"]) == (409, "text/html; charset=utf-8")
    assert "only a failed job can be tried again" in conflict.text.lower()


def test_markup_in_names_stays_text(api: Api, tmp_path: Path, tiny_bert: Path) -> None:
    folder = tiny_bert.parent / MARKUP.replace("/", "")
    folder.symlink_to(tiny_bert, target_is_directory=True)
    try:
        job = api.submit(metadata={"note": MARKUP})
    finally:
        folder.unlink()
    with api.database.write() as connection:
        spec = dict(connection.execute(sa.select(jobs_table.c.spec)).scalar_one())
        connection.execute(jobs_table.update().values(spec=spec | {"model": f'org/"><img src=x>{MARKUP}'}))
    api.succeed()
    for path in ("/", f"/jobs/{job}", "/compare", f"/submit?like={job}", "/submit"):
        answer = api.client.get(path)
        assert answer.status_code == 200
        assert MARKUP not in answer.text
        assert "<img src=x" not in answer.text
    echoed = api.client.get("/", params={"model": MARKUP, "method": MARKUP, "status": MARKUP}).text
    assert MARKUP not in echoed
    refused = api.client.post(
        "/submit", data={"model": MARKUP, "task": MARKUP, "method": MARKUP, "once": MARKUP, "amount": MARKUP}
    )
    assert refused.status_code == 422
    assert MARKUP not in refused.text


def test_numbers_that_are_none_are_dashes(api_on_sqlite: Api) -> None:
    assert {show(NAN) for show in (decimal, percent, times, count, size, span)} == {"–"}
    assert {show(None) for show in (decimal, percent, times, count, size, span)} == {"–"}
    assert [ratio(1, 0), ratio(NAN, 1), ratio(1, NAN), ratio(None, 1), ratio(1, 4)] == [None, None, None, None, 0.25]
    assert scatter([Datum(NAN, 1, 1, 0, ""), Datum(0.5, None, 2, 0, "")], NAN, as_percent=True) is None
    drawn = scatter([Datum(0.5, 0.9, 1, 0, "one"), Datum(0.2, NAN, 2, 0, "two")], NAN, as_percent=True)
    assert [mark.number for mark in drawn.marks] == [1]
    assert drawn.dense_y is None
    # A metric of zero, and counts of nothing, have no shares.
    job = api_on_sqlite.submit()
    api_on_sqlite.succeed()
    with api_on_sqlite.database.write() as connection:
        report = dict(connection.execute(sa.select(jobs_table.c.report)).scalar_one())
        report |= {
            "quality": {"metric": "matthews", "dense": 0.0, "pruned": 0.0, "samples": 1},
            "bytes": {"dense": 0, "pruned": 0},
        }
        connection.execute(jobs_table.update().values(report=report))
    for path in ("/", f"/jobs/{job}", "/compare"):
        answer = api_on_sqlite.client.get(path)
        assert answer.status_code == 200, path
        assert "nan" not in re.sub(r"[\w.-]*nan[\w.-]+|[\w.-]+nan[\w.-]*", "", answer.text.lower())


def test_a_chart_keeps_its_marks_within_its_frame() -> None:
    for values in ([0.9], [0.9, 0.9], [-0.3, 1.0], [0.89999, 0.9], [1e-9, 1e9]):
        drawn = scatter([Datum(0.1 * n, y, n, 0, "") for n, y in enumerate(values, 1)], 0.95, as_percent=True)
        assert all(drawn.left <= mark.x <= drawn.right and drawn.top <= mark.y <= drawn.bottom for mark in drawn.marks)
        labels = [tick.label for tick in drawn.y_ticks]
        assert len(set(labels)) == len(labels), labels
    fast = scatter([Datum(12.5, 0.9, 1, 0, "")], None, as_percent=False)
    assert fast.left < fast.marks[0].x <= fast.right


def test_jobs_of_one_model_are_compared(api: Api) -> None:
    for method in ("fisher-cg", "magnitude"):
        api.submit(method=method)
        api.succeed()
    api.submit(method="random")
    page = api.client.get("/compare", params={"by": "speedup"}).text
    assert len(re.findall(r'<g class="mark', page)) == 2
    assert "Speed-up" in page
    assert "0.8900" in page
    assert "98.9%" in page
    assert api.client.get("/compare", params={"model": "none/such"}).status_code == 200
    assert api.client.get("/compare", params={"by": "nonsense"}).status_code == 200


def test_pages_are_fenced_in(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    job = api.submit()
    api.succeed()
    for path in (*PAGES, "/jobs/none"):
        answer = api.client.get(path.format(id=job))
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?! src=)", answer.text)
        outside = [url for url in re.findall(r'(?:src|href|action)="([^"]+)"', answer.text) if not url.startswith(("/", "#"))]
        assert outside == []
    for asset in set(re.findall(r'"(/static/[^"]+)"', api.client.get("/").text)):
        assert api.client.get(asset).status_code == 200


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://testserver"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, True),
    ],
)
def test_forms_of_other_sites_change_nothing(api_on_sqlite: Api, headers: dict[str, str], accepted: bool) -> None:
    for path, done in (("/jobs/{job}/cancel", 303), ("/v1/jobs/{job}/cancel", 202)):
        job = api_on_sqlite.submit()
        answer = api_on_sqlite.client.post(path.format(job=job), headers=headers, follow_redirects=False)
        assert answer.status_code == (done if accepted else 403)
        status = api_on_sqlite.client.get(f"/v1/jobs/{job}").json()["status"]
        assert status == ("cancelled" if accepted else "queued")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("api:8000", True),
        ("coppice.localhost", True),
        ("Pruning.Example.org:443", True),
        ("rebound.example.net:8000", False),
        ("127.0.0.1.example.net", False),
        ("pruning.example.org.evil.example", False),
        ("[::1", False),
    ],
)
def test_without_keys_the_service_answers_to_its_own_names_only(make_api: Callable[..., Api], host: str, known: bool) -> None:
    open_to_all = make_api("", allowed_hosts=("pruning.example.org",))
    for path in ("/v1/jobs", "/", "/hub/api/models/jobs/none"):
        assert (open_to_all.client.get(path, headers={"Host": host}).status_code != 421) is known, path
    with_keys = make_api("", auth=True)
    assert with_keys.client.get("/v1/jobs", headers={"Host": host}).status_code == 401


def test_what_is_refused_before_a_route_is_reached_is_a_page_for_people(make_api: Callable[..., Api]) -> None:
    api = make_api("", max_body_bytes=2000)
    html = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused = [
        (413, api.client.post("/submit", content=b"a" * 3000, headers=html | form)),
        (404, api.client.get("/no/such/page", headers=html)),
        (403, api.client.post("/submit", content=b"a=1", headers=html | form | {"Origin": "http://evil.example"})),
        (421, api.client.get("/", headers=html | {"Host": "evil.example"})),
    ]
    for status, answer in refused:
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert "<h1>" in answer.text
        assert answer.headers["content-security-policy"]
        assert answer.headers["x-request-id"]
    program = api.client.get("/v1/no/such", headers=html)
    assert program.headers["content-type"] == "application/problem+json"
    assert api.client.get("/no/such/page").headers["content-type"] == "application/problem+json"


def test_bodies_that_are_no_forms_are_refused_as_pages(api_on_sqlite: Api) -> None:
    for body, kind, status in (
        (b"{}", "application/json", 415),
        (b"model=%ff", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=1"] * 500), "application/x-www-form-urlencoded", 400),
        (b"model=a%00b", "application/x-www-form-urlencoded", 422),
    ):
        answer = api_on_sqlite.client.post("/submit", content=body, headers={"Content-Type": kind})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")


def test_a_database_that_is_away_is_a_page_that_says_so(api_on_sqlite: Api) -> None:
    api_on_sqlite.take_the_database_away()
    answer = api_on_sqlite.client.get("/")
    assert answer.status_code == 503
    assert "accepted jobs are safe" in answer.text
    assert answer.headers["retry-after"]


@pytest.fixture
def guarded(make_api: Callable[..., Api]) -> Api:
    return make_api("", auth=True, secret="s" * 40)


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/a\r\nb", "x"]
)
def test_signing_in_leads_nowhere_else(guarded: Api, wanted: str) -> None:
    _key, text = guarded.client.app.state.keys.create(owner="a", name="", scopes=BOTH, lives_s=None, caller=Caller())
    answer = guarded.client.post("/sign-in", data={"key": text, "next": wanted}, follow_redirects=False)
    assert answer.headers["location"] == "/"


def test_guessing_keys_is_counted(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, secret="s" * 40, requests_per_minute=3)
    guesses = [api.client.post("/sign-in", data={"key": f"cpk_{n:043}"}).status_code for n in range(5)]
    assert guesses == [401] * 3 + [429] * 2


def test_a_key_that_may_only_read_is_offered_nothing_else(guarded: Api) -> None:
    signed_in(guarded)
    job = guarded.client.app.state.keys.create(owner="acme", name="", scopes=BOTH, lives_s=None, caller=Caller())[1]
    created = guarded.client.post("/v1/jobs", json=guarded.body, headers={"Authorization": f"Bearer {job}"}).json()["id"]
    assert "/cancel" in guarded.client.get(f"/jobs/{created}").text
    signed_in(guarded, scopes=frozenset({Scope.JOBS_READ}))
    page = guarded.client.get(f"/jobs/{created}").text
    assert "/cancel" not in page
    assert "New job" not in page
    refused = guarded.client.post(f"/jobs/{created}/cancel")
    assert (refused.status_code, refused.headers["content-type"]) == (403, "text/html; charset=utf-8")


def test_moments_are_told_as_people_do() -> None:
    from datetime import UTC, datetime, timedelta

    moment = datetime.now(UTC)
    spans = {1: "just now", 30: "30 s ago", 600: "10 min ago", 4 * 3600: "4 h ago", 5 * 86_400: "5 days ago"}
    assert {seconds: ago(moment - timedelta(seconds=seconds)) for seconds in spans} == spans


def test_a_pattern_is_told_as_what_it_is(api_on_sqlite: Api) -> None:
    body = {name: value for name, value in api_on_sqlite.body.items() if name != "sparsity"}
    job = api_on_sqlite.client.post("/v1/jobs", json=body | {"method": "admm-pattern"}).json()["id"]
    api_on_sqlite.succeed()
    found = {"pattern": "2:4", "selection": "admm", "blocks": 10, "violations": 0, "zeros": 20, "prunable_weights": 40}
    with api_on_sqlite.database.write() as connection:
        report = dict(connection.execute(sa.select(jobs_table.c.report)).scalar_one())
        report |= {"method": "admm-pattern", "pattern": found | {"nonzero_macs": 50, "matrices": []}}
        connection.execute(jobs_table.update().values(report=report))
    page = api_on_sqlite.client.get(f"/jobs/{job}").text
    for said in ("2:4 pattern", "MACs without zeros", "20 of 40 weights", "only devices that skip them are faster"):
        assert said in page
    assert 'class="heads"' not in page
    assert "2:4 pattern" in api_on_sqlite.client.get("/").text
    assert 'value="pattern" selected' in api_on_sqlite.client.get(f"/submit?like={job}").text


def test_engines_have_a_line_each(api_on_sqlite: Api) -> None:
    job = api_on_sqlite.client.post("/v1/jobs", json=api_on_sqlite.body).json()["id"]
    api_on_sqlite.succeed()
    speeds = {
        "dense": {"decode_tokens_s": 10.0, "prefill_tokens_s": 50.0},
        "pruned": {"decode_tokens_s": 15.0, "prefill_tokens_s": 60.0},
    }
    rows = [
        {
            "engine": "vllm",
            "version": "0.32.0",
            "status": "ok",
            "agreement": 1.0,
            "decided": 900,
            "texts": 20,
            "generated": "a",
            **speeds,
        },
        {"engine": "mlx", "status": "missing", "reason": "there is no environment of MLX <here>"},
    ]
    with api_on_sqlite.database.write() as connection:
        report = dict(connection.execute(sa.select(jobs_table.c.report)).scalar_one())
        connection.execute(jobs_table.update().values(report=report | {"engines": rows}))
    page = api_on_sqlite.client.get(f"/jobs/{job}").text
    for said in (
        "vLLM 0.32.0",
        "works; all 900 decided tokens; prefill 50.0 to 60.0 tokens/s, 1.20x, decode 10.0 to 15.0 tokens/s, 1.50x",
        "not tried: there is no environment of MLX &lt;here&gt;",
        "on the CPU with 1 thread: one text at a time (batch 1)",
    ):
        assert said in page
