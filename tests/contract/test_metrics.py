"""What Prometheus is told: right whoever is asked, and nothing of anybody's jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.jobs.records import JobError
from app.main import create_app
from app.settings import Settings
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem

TOKEN = "t" * 32


class Scrape:
    """One answer of /metrics."""

    def __init__(self, client: TestClient, **headers: str) -> None:
        answer = client.get("/metrics", headers=headers)
        assert answer.status_code == 200, answer.text
        self.text = answer.text
        self.values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float | None:
        return self.values.get((name, tuple(sorted(labels.items()))))

    def of_the_service(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """What every process must say alike: counts, not ages or this process's own."""
        shared = ("coppice_job", "coppice_workers", "coppice_webhook")
        return {key: value for key, value in self.values.items() if key[0].startswith(shared)}


def test_jobs_are_told_as_the_database_has_them(api: Api) -> None:
    empty = Scrape(api.client)
    assert empty.get("coppice_jobs", status="queued") == 0
    assert empty.get("coppice_queue_oldest_seconds") == 0
    for _ in range(4):
        api.submit()
    api.succeed()
    api.fail(JobError("quality_floor", "too bad"))
    api.claim()
    found = Scrape(api.client)
    assert {status: found.get("coppice_jobs", status=status) for status in ("queued", "running", "succeeded", "failed")} == {
        "queued": 1,
        "running": 1,
        "succeeded": 1,
        "failed": 1,
    }
    assert found.get("coppice_queue_oldest_seconds") > 0
    assert found.get("coppice_job_attempts_total") == 3
    assert found.get("coppice_jobs_finished_total", status="succeeded") == 1
    assert found.get("coppice_job_failures_total", code="quality_floor") == 1
    assert found.get("coppice_job_wait_seconds_count") == 3
    assert found.get("coppice_job_run_seconds_count") == 2
    assert found.get("coppice_job_stage_seconds_sum", stage="load") == 1
    assert found.get("coppice_job_stage_seconds_bucket", stage="load", le="0.5") == 0
    assert found.get("coppice_job_stage_seconds_bucket", stage="load", le="1.0") == 1
    for part in ("database", "store", "broker"):
        assert found.get("coppice_part_up", part=part) == 1
    assert found.get("coppice_store_free_bytes") > 0


def test_every_process_tells_the_same_and_so_does_a_new_one(api: Api, tmp_path: Path) -> None:
    api.submit()
    api.submit()
    Scrape(api.client)  # this one has begun to read before the rest happened
    api.succeed()
    settings = Settings(data_dir=tmp_path / "data", database_url=api.database.url.render_as_string(hide_password=False))
    with TestClient(create_app(settings)) as other:
        seen = Scrape(other).of_the_service()
        assert seen == Scrape(api.client).of_the_service() == Scrape(other).of_the_service()
    assert len(seen) > 40


def test_webhooks_waiting_are_told(make_api: Callable[..., Api]) -> None:
    api = make_api("", webhook_poll_s=1000)
    made = api.client.post("/v1/webhooks", json={"url": "https://example.org/hook"})
    assert made.status_code == 201, made.text
    api.submit()
    api.succeed()
    found = Scrape(api.client)
    assert found.get("coppice_webhook_outbox_messages") == 1
    assert found.get("coppice_webhooks_disabled") == 0


def test_requests_are_counted_by_template_and_nothing_from_outside_is_a_label(api_on_sqlite: Api) -> None:
    client, job_id = api_on_sqlite.client, api_on_sqlite.submit()
    client.get(f"/v1/jobs/{job_id}")
    client.get("/v1/jobs/job_unknown")
    client.get("/v1/jobs/job_unknown", headers={"Content-Length": "99999999999"})
    for number in range(20):
        client.get(f"/nowhere/{number}")
        client.request(f"VERB{number}", "/v1/jobs")
    found = Scrape(client)
    assert found.get("coppice_http_requests_total", method="POST", route="/v1/jobs", status="202") == 1
    assert found.get("coppice_http_requests_total", method="GET", route="/v1/jobs/{job_id}", status="200") == 1
    assert found.get("coppice_http_requests_total", method="GET", route="/v1/jobs/{job_id}", status="404") == 1
    assert found.get("coppice_http_requests_total", method="GET", route="(none)", status="404") == 20
    assert found.get("coppice_http_request_seconds_count", method="GET", route="/v1/jobs/{job_id}") == 2
    assert job_id not in found.text
    assert "VERB" not in found.text
    assert "nowhere" not in found.text


def test_without_the_database_the_rest_is_told(api: Api) -> None:
    api.submit()
    api.take_the_database_away()
    found = Scrape(api.client)
    assert found.get("coppice_part_up", part="database") == 0
    assert found.get("coppice_part_up", part="store") == 1
    assert found.get("coppice_jobs", status="queued") is None
    assert found.get("coppice_http_requests_total", method="POST", route="/v1/jobs", status="202") == 1


def test_with_keys_metrics_ask_for_their_own_token(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, metrics_token=TOKEN)
    for shown in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer \xe9"}):
        raw = {name: value.encode("latin-1") for name, value in shown.items()}
        assert_problem(api.client.get("/metrics", headers=raw), 401, "unauthenticated")
    assert Scrape(api.client, Authorization=f"Bearer {TOKEN}").get("coppice_jobs", status="queued") == 0
    # It opens nothing else.
    assert_problem(api.client.get("/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"}), 401, "unauthenticated")


def test_with_keys_and_no_token_metrics_are_closed(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True)
    assert_problem(api.client.get("/metrics"), 403, "metrics_closed")


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0", "*/*", "image/png", ""])
def test_any_scraper_gets_a_format_that_it_reads(api_on_sqlite: Api, accept: str) -> None:
    answer = api_on_sqlite.client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    expected = "application/openmetrics-text" if "openmetrics" in accept else "text/plain"
    assert answer.headers["content-type"].startswith(expected)
