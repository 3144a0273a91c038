"""A paused queue: nothing is taken, everything is accepted, people are told; and a drained one says when nothing runs."""

from __future__ import annotations

import threading
import time

from app.db import Database
from app.jobs.control import ControlRepository, QueueState
from app.jobs.leases import LeaseRepository
from app.queue import create_celery, depth
from tests.contract.conftest import Api
from worker.reaper import Reaper
from worker.supervisor import Supervisor


def supervisor(api: Api) -> Supervisor:
    settings = api.client.app.state.settings.model_copy(update={"min_free_bytes": 0})
    command = ("/bin/false",)
    return Supervisor(settings, api.database, api.store, worker="w", stopping=lambda: False, command=command)


def test_a_paused_queue_takes_nothing_and_accepts_everything(api: Api) -> None:
    first = api.submit()
    seen = api.client.post("/v1/queue/pause").json()
    assert (seen["state"], seen["waiting"], seen["running"], seen["drained"]) == ("paused", 1, 0, True)
    assert supervisor(api).run_next() is False
    job = api.client.get(f"/v1/jobs/{api.submit()}").json()
    assert (job["status"], job["queue"]["paused"], job["queue"]["before"]) == ("queued", True, 1)
    for page in ("/", f"/jobs/{first}"):
        assert "The queue is paused" in api.client.get(page).text
    since = api.client.post("/v1/queue/pause").json()["since"]
    assert since == seen["since"], "asking twice is once"
    assert api.client.post("/v1/queue/resume").json()["state"] == "open"
    assert "The queue is paused" not in api.client.get("/").text
    assert api.client.get(f"/v1/jobs/{first}").json()["queue"]["paused"] is False
    assert supervisor(api).run_next() is True
    told = [event["action"] for event in api.client.get("/v1/audit-events").json()["data"]]
    assert [action for action in told if action.startswith("queue.")] == ["queue.resumed", "queue.paused"]


def test_draining_says_when_nothing_runs_any_more(api: Api) -> None:
    api.submit()
    job, fence = api.claim()
    seen = api.client.post("/v1/queue/drain").json()
    assert (seen["state"], seen["running"], seen["drained"]) == ("draining", 1, False)
    with api.database.write() as connection:
        assert LeaseRepository(connection).heartbeat(job, fence, lease_s=9, progress=None), "what runs goes on"
        assert LeaseRepository(connection).release(job, fence)
    seen = api.client.get("/v1/queue").json()
    assert (seen["state"], seen["running"], seen["waiting"], seen["drained"]) == ("draining", 0, 1, True)
    assert supervisor(api).run_next() is False
    assert api.client.post("/v1/queue/resume").json()["drained"] is False


def test_no_worker_is_woken_for_nothing(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    settings = api.client.app.state.settings.model_copy(update={"republish_after_s": 0.0001})
    celery = create_celery(settings)
    reaper = Reaper(settings, api.database, api.store, celery)
    api.client.post("/v1/queue/pause")
    api.submit()
    time.sleep(1)
    before = depth(celery)
    reaper.wake()
    assert depth(celery) == before
    api.client.post("/v1/queue/resume")
    reaper.wake()
    assert depth(celery) == before + 1


def test_once_a_pause_is_answered_no_claim_is_committed(api: Api) -> None:
    """A claim that has looked at the queue already is waited for."""
    api.submit()
    looked, paused, claimed = threading.Event(), list[float](), list[float]()

    def claim() -> None:
        own = Database(api.database.url.render_as_string(hide_password=False))
        with own.write() as connection:
            assert ControlRepository(connection).may_claim()
            looked.set()
            time.sleep(0.5)
            assert LeaseRepository(connection).claim(worker="w", lease_s=9)
        claimed.append(time.monotonic())
        own.close()

    thread = threading.Thread(target=claim)
    thread.start()
    assert looked.wait(5)
    with api.database.write() as connection:
        assert ControlRepository(connection).set(QueueState.PAUSED)
        paused.append(time.monotonic())
    thread.join()
    assert paused[0] > claimed[0] - 0.1
    assert api.client.get("/v1/queue").json()["running"] == 1
