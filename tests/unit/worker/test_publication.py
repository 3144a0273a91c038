"""Results that meet a store in trouble, candidates of failed jobs, and work that outlives an attempt."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from app.jobs.repository import JobRepository
from app.jobs.states import JobStatus
from tests.servers import wait_until
from tests.unit.worker.conftest import Bench

CANDIDATE = "succeed()\nfail(code='target_missed', message='too coarse', param='target')"


def _block(bench: Bench) -> Path:
    """Put a file where the store's folder should be: no key can be written."""
    blocked = bench.settings.resolved_artifacts_dir / "jobs"
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("")
    return blocked


def _while_blocked(bench: Bench, act: Callable[[Path], None]) -> None:
    blocked = _block(bench)
    thread = threading.Thread(target=bench.run, args=("succeed()",))
    thread.start()
    try:
        wait_until(lambda: (bench.notes / "pid").is_file() and bench.child_is_gone(), "the child to finish")
        time.sleep(0.3)
        act(blocked)
    finally:
        thread.join(30)
    assert not thread.is_alive()


def test_a_failed_job_publishes_its_best_candidate(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run(CANDIDATE)
    row = bench.row(job_id)
    assert (row.status, row.error["code"], row.crashes) == (JobStatus.FAILED, "target_missed", 0)
    assert row.report["target"]["achieved"] == 0.501
    assert bench.artifacts(job_id) == ["deep/config.json", "model.safetensors"]


def test_without_room_for_the_candidate_the_error_stands_alone(bench: Bench) -> None:
    job_id = bench.submit()
    _block(bench)
    bench.run(CANDIDATE)
    row = bench.row(job_id)
    assert (row.status, row.error["code"]) == (JobStatus.FAILED, "target_missed")
    assert bench.artifacts(job_id) == []


def test_a_result_waits_for_the_store(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"storage_wait_s": 20})
    job_id = bench.submit()
    _while_blocked(bench, Path.unlink)
    row = bench.row(job_id)
    assert (row.status, row.crashes, row.fence) == (JobStatus.SUCCEEDED, 0, 1)


def test_a_cancellation_ends_the_wait_for_the_store(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"storage_wait_s": 60})
    job_id = bench.submit()

    def cancel(_blocked: Path) -> None:
        with bench.database.write() as connection:
            assert JobRepository(connection).request_cancel(job_id)

    _while_blocked(bench, cancel)
    assert bench.row(job_id).status == JobStatus.CANCELLED


def test_a_shutdown_ends_the_wait_for_the_store_uncharged(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"storage_wait_s": 60})
    job_id = bench.submit()
    _while_blocked(bench, lambda _blocked: bench.stopping.set())
    row = bench.row(job_id)
    assert (row.status, row.attempt, row.crashes) == (JobStatus.QUEUED, 0, 0)


def test_a_commit_whose_confirmation_is_lost_keeps_its_files(bench: Bench) -> None:
    job_id = bench.submit()
    cut: list[str] = []

    def lose_the_answer(connection, cursor, statement, parameters, context, executemany) -> None:
        # The first that follows the commit of the result is the retry: by then the answer to the commit is lost.
        if "status" in statement and "'succeeded'" in str(parameters).replace('"', "'") and not cut:
            cut.append(job_id)

    def after_commit(dbapi_connection, record) -> None:
        if cut == [job_id]:
            cut.append("done")
            raise OperationalError("COMMIT", {}, Exception("the connection broke"))

    event.listen(bench.database.engine, "before_cursor_execute", lose_the_answer)
    event.listen(bench.database.engine, "checkin", after_commit)
    bench.run("succeed()")
    assert cut == [job_id, "done"]
    assert bench.row(job_id).status == JobStatus.SUCCEEDED
    assert bench.store.keys("jobs", after="", limit=9) == [
        f"jobs/{job_id}/1/{name}" for name in ("deep/config.json", "model.safetensors", "model.sig", "provenance.json")
    ]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_store_says_so_whatever_is_full(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def put(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    bench.settings = bench.settings.model_copy(update={"max_attempts": 1})
    job_id = bench.submit()
    monkeypatch.setattr(bench.store, "put", put)
    bench.run("succeed()")
    row = bench.row(job_id)
    assert (row.status, row.error["code"]) == (JobStatus.FAILED, "storage_full")


def test_without_room_on_the_disk_a_worker_takes_nothing(bench: Bench) -> None:
    job_id = bench.submit()
    room = bench.settings
    bench.settings = room.model_copy(update={"min_free_bytes": 2**62})
    assert bench.run("succeed()") is False
    assert bench.row(job_id).fence == 0
    bench.settings = room
    assert bench.run("succeed()") is True


def test_what_an_attempt_has_saved_is_there_for_the_next(bench: Bench) -> None:
    job_id = bench.submit()
    save = "saved = scratch / 'work' / 'step'\n"
    bench.run(save + "saved.write_text('7'); (scratch / 'bundle').mkdir(); sys.exit(9)")
    assert bench.row(job_id).crashes == 1
    folder = bench.settings.resolved_scratch_dir / f"{job_id}.1"
    assert [path.name for path in folder.iterdir()] == ["work"], "only what can be gone on from is kept"
    bench.run(save + "succeed() if saved.read_text() == '7' else sys.exit(9)")
    assert bench.row(job_id).status == JobStatus.SUCCEEDED
    assert not (folder / "work").exists(), "an attempt that does not know that it is over finds nothing to write to"


@pytest.mark.parametrize("error", ["torch", "disk"])
def test_what_may_pass_is_tried_again(bench: Bench, error: str) -> None:
    texts = {
        "torch": "RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried to allocate 9 bytes')",
        "disk": "OSError(28, 'No space left on device')",
    }
    job_id = bench.submit()
    bench.run(f"from worker.failures import explain\nfail(**json.loads(explain({texts[error]}).model_dump_json()))")
    row = bench.row(job_id)
    assert (row.status, row.crashes) == (JobStatus.QUEUED, 1)
    assert json.dumps(row.error) == "null"
