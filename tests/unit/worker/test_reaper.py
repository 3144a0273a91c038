"""The reaper on a real database, a real folder broker and a real store."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery

from app.db import now
from app.jobs.leases import LeaseRepository
from app.jobs.limits import JobLimits
from app.jobs.models import jobs
from app.jobs.repository import JobRepository
from app.jobs.states import JobStatus
from app.queue import create_celery
from pruning_core.report.report import Report
from tests.unit.app.sample import REPORT
from tests.unit.worker.conftest import Bench
from worker.reaper import Reaper, Watch


@pytest.fixture
def celery(bench: Bench) -> Celery:
    return create_celery(bench.settings)


@pytest.fixture
def reaper(bench: Bench, celery: Celery) -> Reaper:
    return Reaper(bench.settings, bench.database, bench.store, celery)


def test_an_expired_lease_is_taken_back_and_announced(bench: Bench, reaper: Reaper) -> None:
    job_id = bench.submit()
    _claim(bench, lease_s=-1)
    reaper.rescue()
    reaper.wake()
    row = bench.row(job_id)
    assert (row.status, row.losses, row.attempt, row.fence) == (JobStatus.QUEUED, 1, 1, 1)
    assert _messages(bench) == 1


def test_a_living_lease_is_left_alone(bench: Bench, reaper: Reaper) -> None:
    job_id = bench.submit()
    _claim(bench, lease_s=30)
    reaper.rescue()
    reaper.wake()
    assert bench.row(job_id).status == JobStatus.RUNNING
    assert _messages(bench) == 0


def test_losses_are_capped(bench: Bench, reaper: Reaper) -> None:
    job_id = bench.submit()
    for _ in range(bench.settings.max_attempts):
        assert _claim(bench, lease_s=-1)
        reaper.rescue()
    row = bench.row(job_id)
    assert (row.status, row.error["code"]) == (JobStatus.FAILED, "lost")


def test_a_job_s_own_cap_of_losses_is_lower(bench: Bench, reaper: Reaper) -> None:
    job_id = bench.submit(limits=JobLimits(max_attempts=1))
    assert _claim(bench, lease_s=-1)
    reaper.rescue()
    row = bench.row(job_id)
    assert (row.status, row.error["code"], row.attempt) == (JobStatus.FAILED, "lost", 1)


def test_a_cancellation_whose_worker_is_lost_is_confirmed(bench: Bench, reaper: Reaper) -> None:
    job_id = bench.submit()
    _claim(bench, lease_s=-1)
    with bench.database.write() as connection:
        JobRepository(connection).request_cancel(job_id)
    reaper.rescue()
    assert bench.row(job_id).status == JobStatus.CANCELLED


def test_two_reapers_at_once_take_a_job_back_once(bench: Bench, celery: Celery) -> None:
    job_ids = [bench.submit() for _ in range(8)]
    for _ in job_ids:
        _claim(bench, lease_s=-1)
    barrier = threading.Barrier(4)

    def tick() -> None:
        reaper = Reaper(bench.settings, bench.database, bench.store, celery)
        barrier.wait()
        reaper.rescue()

    threads = [threading.Thread(target=tick) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job_id in job_ids:
        assert bench.row(job_id).losses == 1
        assert bench.events(job_id).count("job.requeued") == 1


def test_a_sleeping_job_is_woken_again_and_ever_more_rarely(bench: Bench, reaper: Reaper) -> None:
    job_id = bench.submit()
    reaper.wake()
    assert _messages(bench) == 0, "its first wake-up has only just been sent"
    for count, silence_s in enumerate((11, 21, 41), start=1):
        _silent_for(bench, job_id, silence_s - 2)
        reaper.wake()
        assert _messages(bench) == count - 1
        _silent_for(bench, job_id, silence_s)
        reaper.wake()
        assert _messages(bench) == count


def test_a_backlog_does_not_flood_the_broker(bench: Bench, reaper: Reaper) -> None:
    for _ in range(70):
        _silent_for(bench, bench.submit(), 1000)
    reaper.wake()
    assert _messages(bench) == 50


def test_only_files_of_living_or_published_fences_survive_a_sweep(bench: Bench, reaper: Reaper) -> None:
    source = bench.notes / "file"
    source.write_bytes(b"x")
    done, running, requeued = bench.submit(), bench.submit(), bench.submit()
    with bench.database.write() as connection:  # oldest first: done, running, requeued
        leases = LeaseRepository(connection)
        for _ in range(3):
            leases.claim(worker="w", lease_s=60)
        size, sha256 = bench.store.put(f"jobs/{done}/1/model.safetensors", source)
        artifact = _stored("model.safetensors", size, sha256)
        assert leases.succeed(done, 1, report=Report.model_validate(REPORT), artifacts=[artifact])
        assert leases.release(requeued, 1)
    for key in (f"{done}/0/f", f"{running}/1/f", f"{requeued}/1/f", "job_unknown/1/f"):
        bench.store.put(f"jobs/{key}", source)
    reaper.sweep()
    assert bench.store.keys("jobs", after="", limit=10) == sorted([f"jobs/{done}/1/model.safetensors", f"jobs/{running}/1/f"])


def test_a_long_store_is_swept_page_by_page(bench: Bench, celery: Celery) -> None:
    reaper = Reaper(bench.settings, bench.database, bench.store, celery, sweep_keys=2)
    source = bench.notes / "file"
    source.write_bytes(b"x")
    for job in ("a", "b", "c"):
        for fence in (1, 2):
            bench.store.put(f"jobs/{job}/{fence}/f", source)
    left = []
    for _ in range(4):
        reaper.sweep()
        left.append(len(bench.store.keys("jobs", after="", limit=99)))
    assert left == [4, 2, 0, 0]
    assert list((bench.settings.resolved_artifacts_dir / "jobs").iterdir()) == [], "no empty folders stay"


def test_expired_artifacts_are_withdrawn_and_deleted(bench: Bench, reaper: Reaper) -> None:
    bench.settings = bench.settings.model_copy(update={"artifacts_keep_s": 0.2})
    job_id = bench.submit()
    bench.run("succeed()")
    assert len(bench.artifacts(job_id)) == 4
    time.sleep(0.3)
    reaper.sweep()
    assert bench.artifacts(job_id) == []
    assert bench.store.keys("jobs", after="", limit=9) == []
    assert bench.row(job_id).status == JobStatus.SUCCEEDED


def test_folders_of_killed_workers_are_deleted_but_for_their_work(bench: Bench, reaper: Reaper) -> None:
    waiting, done = bench.submit(), bench.submit()
    running = bench.submit()
    bench.change(waiting, fence=2)
    bench.change(running, status="running", fence=2)
    bench.change(done, status="succeeded", fence=1)
    root = bench.settings.resolved_scratch_dir
    for name in (f"{waiting}.1", f"{running}.2", f"{done}.1", "job_unknown.1"):
        (root / name / "work").mkdir(parents=True)
        (root / name / "work" / "step").write_text("1")
        (root / name / "request.json").write_text("{}")
    (root / f"{waiting}.2" / "work").mkdir(parents=True)
    reaper.sweep()
    left = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert left == sorted([f"{waiting}.1/work/step", f"{running}.2/work/step", f"{running}.2/request.json"])
    assert not (root / f"{waiting}.2").exists()


def test_a_broker_that_is_down_costs_no_job_its_turn(bench: Bench) -> None:
    job_id = bench.submit()
    _silent_for(bench, job_id, 100)
    before = bench.row(job_id)
    settings = bench.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    Reaper(settings, bench.database, bench.store, create_celery(settings)).wake()
    after = bench.row(job_id)
    assert (after.published_at, after.publish_count) == (before.published_at, before.publish_count)


@pytest.mark.parametrize(
    ("looks", "judged"),
    [
        ([(0, 100), (5, 105), (9, 109), (10, 110)], [False, False, False, True]),
        ([(0, 100), (5, 105), (10, 110), (17, 117), (22, 122), (27, 127)], [False, False, True, False, False, True]),
        ([(0, 100), (5, 105), (10, 3710), (15, 3715), (20, 3720)], [False, False, False, False, True]),
        ([(0, 100), (5, 105), (10, 50), (15, 55), (20, 60)], [False, False, False, False, True]),
    ],
    ids=["from the start", "after an outage", "after a leap ahead", "after a leap back"],
)
def test_leases_are_judged_after_one_lease_of_watching(
    monkeypatch: pytest.MonkeyPatch, looks: list[tuple[float, float]], judged: list[bool]
) -> None:
    watch = Watch(lease_s=10, tick_s=2)
    found = []
    for here, there in looks:
        monkeypatch.setattr("worker.reaper.time.monotonic", lambda here=here: float(here))
        found.append(watch.look(float(there)))
    assert found == judged


def test_the_thread_survives_an_outage_and_then_waits_a_lease(bench: Bench, celery: Celery) -> None:
    bench.settings = bench.settings.model_copy(update={"reaper_tick_s": 0.05, "lease_s": 1.5})
    job_id = bench.submit()
    _claim(bench, lease_s=-1)
    database, aside = Path(str(bench.database.url.database)), bench.notes / "aside.db"
    bench.database.close()
    database.rename(aside)
    database.mkdir()  # nothing can be opened there
    reaper = Reaper(bench.settings, bench.database, bench.store, celery)
    reaper.start()
    try:
        time.sleep(0.5)
        database.rmdir()
        back = time.monotonic()
        aside.rename(database)
        time.sleep(0.7)
        assert bench.row(job_id).status == JobStatus.RUNNING, "its worker could not renew the lease either"
        while bench.row(job_id).status == JobStatus.RUNNING:
            assert time.monotonic() - back < 10
            time.sleep(0.05)
    finally:
        reaper.stop()
    assert bench.row(job_id).status == JobStatus.QUEUED


def _claim(bench: Bench, *, lease_s: float) -> bool:
    with bench.database.write() as connection:
        return LeaseRepository(connection).claim(worker="w", lease_s=lease_s) is not None


def _silent_for(bench: Bench, job_id: str, seconds: float) -> None:
    with bench.database.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(published_at=now() - sa.literal(seconds)))


def _messages(bench: Bench) -> int:
    return len(list((bench.settings.data_dir / "broker" / "messages").iterdir()))


def _stored(path: str, size: int, sha256: str):
    from app.storage import StoredArtifact

    return StoredArtifact(path, size, sha256)
