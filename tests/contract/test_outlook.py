"""Other budgets of a job, over HTTP and on its page: what they stand on, and the order of one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa

from app.jobs.models import jobs
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem

OUTLOOK = {
    "points": [
        {"keep": 0.9, "parameters": 190, "bytes": 380, "cost": 0.01},
        {"keep": 0.5, "parameters": 150, "bytes": 300, "cost": 0.25},
        {"keep": 0.2, "parameters": 120, "bytes": 240, "cost": 0.64},
    ]
}


def _ended(
    api: Api, *, keep: float = 0.5, agreement: float | None = 0.9, metadata: dict[str, str] | None = None, **fields: Any
) -> str:
    """Let a job succeed with an outlook, having kept a share of the MACs."""
    job_id = api.submit(metadata=metadata or {})
    assert api.succeed() == job_id
    with api.database.write() as connection:
        report = dict(connection.execute(sa.select(jobs.c.report).where(jobs.c.id == job_id)).scalar_one())
        details = {} if agreement is None else {"agreement_with_dense": agreement}
        report |= {
            "outlook": OUTLOOK,
            "macs": {"dense": 100, "pruned": round(100 * keep)},
            "quality": report["quality"] | {"details": details},
        }
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(report=report | fields))
    return job_id


def _outlook(api: Api, job_id: str) -> dict[str, Any]:
    answer = api.client.get(f"/v1/jobs/{job_id}/outlook")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_one_checkpoint_gives_a_scale_and_no_error(api: Api) -> None:
    found = _outlook(api, job_id := _ended(api))
    assert found["measure"] == "share of answers that differ from the dense model's"
    assert [round(100 * own["macs_keep"]) for own in found["predictions"]] == list(range(99, 19, -1))
    by_share = {round(100 * own["macs_keep"]): own for own in found["predictions"]}
    assert (by_share[90]["parameters"], by_share[90]["bytes"]) == (190, 380)
    assert by_share[50]["divergence"] == pytest.approx(0.1)
    assert by_share[20]["divergence"] == pytest.approx(0.256)
    (built,) = found["built"]
    assert (built["job"], built["predicted_divergence"], built["predicted_speedup"]) == (job_id, None, None)


def test_derived_jobs_count_for_parent_and_siblings_and_say_how_well_they_were_predicted(api: Api) -> None:
    parent = _ended(api)
    first = _ended(api, keep=0.9, agreement=0.99, metadata={"derived_from": parent})
    second = _ended(api, keep=0.2, agreement=0.8, metadata={"derived_from": parent})
    _ended(api, keep=0.7)  # a stranger
    for job_id in (parent, first, second):
        built = _outlook(api, job_id)["built"]
        assert [own["job"] for own in built] == [first, parent, second]
        assert all(own["predicted_divergence"] > 0 for own in built)


def test_a_job_of_another_layout_or_seed_does_not_count(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    parent = _ended(api)
    other = _ended(api, metadata={"derived_from": parent})
    with api.database.write() as connection:
        spec = dict(connection.execute(sa.select(jobs.c.spec).where(jobs.c.id == other)).scalar_one())
        connection.execute(jobs.update().where(jobs.c.id == other).values(spec=spec | {"seed": 99}))
    assert [own["job"] for own in _outlook(api, parent)["built"]] == [parent]


def test_a_task_without_a_measure_has_sizes_and_speed(api_on_sqlite: Api) -> None:
    found = _outlook(api_on_sqlite, _ended(api_on_sqlite, agreement=None))
    assert found["measure"] is None
    assert all(own["divergence"] is None and own["speedup"] for own in found["predictions"])


def test_what_has_no_outlook_says_why(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    assert_problem(api.client.get("/v1/jobs/job_none/outlook"), 404, "job_not_found")
    early = _ended(api, outlook=None)
    assert "earlier version" in assert_problem(api.client.get(f"/v1/jobs/{early}/outlook"), 404, "no_outlook")["detail"]
    stock = _ended(api, outlook=None, layout="stock")
    assert "stock" in assert_problem(api.client.get(f"/v1/jobs/{stock}/outlook"), 404, "no_outlook")["detail"]
    assert_problem(api.client.get(f"/v1/jobs/{api.submit()}/outlook"), 404, "report_not_ready")
    assert "Other budgets" not in api.client.get(f"/jobs/{stock}").text


def test_the_page_shows_a_budget_without_scripts_and_orders_it(api: Api) -> None:
    parent = _ended(api)
    page = api.client.get(f"/jobs/{parent}?keep=30").text
    assert "Other budgets" in page
    assert 'data-show="keep">30<' in page
    once = re.search(r'name="once" value="([0-9a-f]{32})"', page)
    assert once is not None
    for _ in range(2):  # sent twice, it is one order
        answer = api.client.post(f"/jobs/{parent}/derive", data={"keep": "30", "once": once[1]}, follow_redirects=False)
        assert answer.status_code == 303
    job = api.client.get(f"/v1{answer.headers['location']}").json()
    assert job["requested"] == {"metric": "macs", "value": 0.3, "tolerance": 0.01}
    assert job["metadata"] == {"derived_from": parent}
    assert len(api.client.get(f"/v1/jobs?metadata[derived_from]={parent}").json()["data"]) == 1


@pytest.mark.parametrize("keep", ["", "0", "100", "30.5", "x", "<script>"])
def test_a_budget_that_is_none_is_refused(api_on_sqlite: Api, keep: str) -> None:
    parent = _ended(api_on_sqlite)
    answer = api_on_sqlite.client.post(f"/jobs/{parent}/derive", data={"keep": keep, "once": "0" * 32})
    assert answer.status_code == 422
    assert "whole number of per cent" in answer.text
    assert api_on_sqlite.client.get(f"/v1/jobs?metadata[derived_from]={parent}").json()["data"] == []


def test_a_report_of_nothing_divides_by_nothing(api_on_sqlite: Api) -> None:
    none = {"dense": 0, "pruned": 0}
    quality = {"metric": "perplexity", "dense": 0.0, "pruned": 0.0, "samples": 1, "lower_is_better": True}
    job_id = _ended(api_on_sqlite, bytes=none, macs=none, parameters=none, quality=quality)
    found = _outlook(api_on_sqlite, job_id)
    assert (found["measure"], found["built"], found["dense_bytes"]) == (None, [], 0)
    assert api_on_sqlite.client.get(f"/jobs/{job_id}").status_code == 200
