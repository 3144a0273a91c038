"""One job under supervision: every way in which a child can end, or must be ended."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from app.jobs.limits import JobLimits
from app.jobs.repository import JobRepository
from app.jobs.states import JobStatus
from tests.unit.worker.conftest import MODEL, Bench, gone_soon

HANG = "tell('score', 1, 4)\ntime.sleep(60)"
HELPER = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
(NOTES / "helper").write_text(str(helper.pid))
"""


def test_nothing_due_is_nothing_done(bench: Bench) -> None:
    assert bench.run("succeed()") is False
    assert not (bench.notes / "pid").exists()


def test_a_success_is_published_whole(bench: Bench) -> None:
    job_id = bench.submit()
    assert bench.run("succeed()") is True
    row = bench.row(job_id)
    assert (row.status, row.fence, row.attempt, row.lease_until) == (JobStatus.SUCCEEDED, 1, 1, None)
    assert row.report["target"]["achieved"] == 0.501
    assert bench.artifacts(job_id) == ["deep/config.json", "model.safetensors", "model.sig", "provenance.json"]
    assert b"".join(bench.store.open(f"jobs/{job_id}/1/model.safetensors", 0, 7)) == b"weights"
    assert bench.scratch_is_empty()


def test_the_child_gets_the_spec_and_the_settings(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"device": "cpu", "threads": 3})
    bench.submit()
    bench.run("(NOTES / 'copy').write_text((scratch / 'request.json').read_text())\nsucceed()")
    request = json.loads((bench.notes / "copy").read_text())
    assert (request["device"], request["threads"]) == ("cpu", 3)
    assert request["spec"]["model"] == MODEL


def test_progress_reaches_the_job_whatever_else_is_printed(bench: Bench) -> None:
    job_id = bench.submit()
    noise = "print('Downloading: 100%'); progress.write('no json\\n'); os.write(1, b'\\xff\\xfe'); "
    bench.run_while(noise + HANG, lambda: _until_progress(bench, job_id))
    assert bench.events(job_id)[:3] == ["job.queued", "job.started", "job.stage"]


def test_a_store_that_cannot_take_the_files_counts_as_a_crash(bench: Bench) -> None:
    job_id = bench.submit()
    jobs_folder = bench.settings.resolved_artifacts_dir / "jobs"
    jobs_folder.parent.mkdir(parents=True, exist_ok=True)
    jobs_folder.write_text("a file stands where the store's folder should be")
    bench.run("succeed()")
    row = bench.row(job_id)
    assert (row.status, row.crashes, row.report) == (JobStatus.QUEUED, 1, None)
    assert bench.artifacts(job_id) == []
    jobs_folder.unlink()
    bench.run("succeed()")
    assert bench.row(job_id).status == JobStatus.SUCCEEDED
    assert bench.scratch_is_empty()


def test_a_typed_error_fails_the_job_at_once(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run("fail(code='dataset_invalid', message='the train split is empty', param='task.dataset')")
    row = bench.row(job_id)
    assert row.status == JobStatus.FAILED
    assert row.error == {"code": "dataset_invalid", "message": "the train split is empty", "param": "task.dataset"}
    assert row.crashes == 0
    assert bench.scratch_is_empty()


def test_a_transient_error_is_tried_again_up_to_the_cap(bench: Bench) -> None:
    job_id = bench.submit()
    script = "fail(code='oom', message='out of memory', transient=True)"
    for attempt in (1, 2):
        bench.run(script)
        row = bench.row(job_id)
        assert (row.status, row.crashes, row.fence) == (JobStatus.QUEUED, attempt, attempt)
    bench.run(script)
    assert bench.row(job_id).status == JobStatus.FAILED
    assert bench.row(job_id).error["code"] == "oom"


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("sys.exit(7)", "exit code 7"),
        ("sys.exit(0)", "exit code 0"),  # says that all is well, and has written nothing
        ("sys.exit(3)", "exit code 3"),
    ],
)
def test_a_crash_is_counted_apart_and_capped(bench: Bench, script: str, how: str) -> None:
    job_id = bench.submit()
    bench.run(script)
    row = bench.row(job_id)
    assert (row.status, row.crashes, row.losses) == (JobStatus.QUEUED, 1, 0)
    bench.run(script)
    bench.run(script)
    row = bench.row(job_id)
    assert (row.status, row.fence) == (JobStatus.FAILED, 3)
    assert row.error["code"] == "crashed"
    assert how in row.error["message"]
    assert bench.run(script) is False


def test_a_cancelled_job_s_whole_process_group_is_gone_before_it_says_so(bench: Bench) -> None:
    job_id = bench.submit()

    def cancel() -> None:
        helper = bench.notes / "helper"
        while not helper.is_file() or not helper.read_text():
            time.sleep(0.02)
        _cancel(bench, job_id)

    bench.run_while(HELPER + "time.sleep(60)", cancel)
    assert bench.row(job_id).status == JobStatus.CANCELLED
    assert bench.child_is_gone()
    assert gone_soon(int((bench.notes / "helper").read_text()))
    assert bench.artifacts(job_id) == []
    assert bench.scratch_is_empty()


def test_what_a_child_leaves_running_ends_with_it(bench: Bench) -> None:
    bench.submit()
    bench.run(HELPER + "succeed()")
    assert gone_soon(int((bench.notes / "helper").read_text()))


def test_a_killed_child_s_temporary_files_are_gone_too(bench: Bench) -> None:
    bench.submit()
    bench.run(
        "import tempfile\nplace = tempfile.mkdtemp()\nPath(place, 'large').write_bytes(b'x')\n"
        "(NOTES / 'place').write_text(place)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    place = Path((bench.notes / "place").read_text())
    assert place.is_relative_to(bench.settings.resolved_scratch_dir.resolve()), "it counts as the job's disk space"
    assert not place.exists()


@pytest.mark.parametrize(
    "script",
    [
        "fail(code='dataset_invalid', message='empty')",
        "fail(code='oom', message='out of memory', transient=True)",
        "succeed()\nfail(code='quality_floor', message='too bad')",  # which leaves its best candidate
        "os.kill(os.getpid(), signal.SIGKILL)",
        "sys.exit(7)",
        "time.sleep(60)",
        "succeed()\n(scratch / 'result.json').write_text('no report')",
    ],
    ids=["failed", "out of memory", "rejected", "killed", "crashed", "too long", "unreadable report"],
)
@pytest.mark.parametrize("max_attempts", [1, 3], ids=["at the cap", "below it"])
def test_an_attempt_that_ends_before_it_hears_of_its_cancellation_ends_cancelled(
    bench: Bench, script: str, max_attempts: int
) -> None:
    timeout_s = 2.5 if "sleep" in script else 60
    bench.settings = bench.settings.model_copy(
        update={"heartbeat_s": 60.0, "max_attempts": max_attempts, "job_timeout_s": timeout_s}
    )
    job_id = bench.submit()
    wait = "while not (NOTES / 'asked').exists(): time.sleep(0.02)\n"

    def cancel() -> None:
        _cancel(bench, job_id)
        (bench.notes / "asked").touch()

    bench.run_while(wait + script, cancel)
    row = bench.row(job_id)
    assert (row.status, row.error) == (JobStatus.CANCELLED, None)
    assert bench.artifacts(job_id) == []
    assert bench.store.keys("jobs", after="", limit=9) == []
    assert bench.events(job_id)[-1] == "job.cancelled"


def test_a_worker_that_shuts_down_while_its_job_is_being_cancelled_cancels_it(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"heartbeat_s": 60.0})
    job_id = bench.submit()

    def cancel_and_stop() -> None:
        _cancel(bench, job_id)
        bench.stopping.set()

    bench.run_while(HANG, cancel_and_stop)
    assert bench.row(job_id).status == JobStatus.CANCELLED


def test_a_job_that_runs_too_long_fails(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"job_timeout_s": 0.5})
    job_id = bench.submit()
    began = time.monotonic()
    bench.run(HANG)
    assert time.monotonic() - began < 10
    row = bench.row(job_id)
    assert row.status == JobStatus.FAILED
    assert row.error["code"] == "timeout"
    assert bench.child_is_gone()


def test_a_job_whose_lease_went_to_another_is_dropped(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run_while(HANG, lambda: bench.change(job_id, fence=2, worker="another"))
    row = bench.row(job_id)
    assert (row.status, row.fence, row.worker) == (JobStatus.RUNNING, 2, "another")
    assert bench.child_is_gone()


def test_a_result_under_a_stale_fence_is_refused(bench: Bench) -> None:
    job_id = bench.submit()
    bench.settings = bench.settings.model_copy(update={"heartbeat_s": 60.0})  # so that only the commit can notice
    path = bench.settings.data_dir / "coppice.db"
    steal = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('UPDATE jobs SET fence = 2'); c.commit(); succeed()"
    bench.run(steal)
    row = bench.row(job_id)
    assert (row.status, row.fence, row.report) == (JobStatus.RUNNING, 2, None)
    assert bench.artifacts(job_id) == []


def test_a_worker_that_shuts_down_gives_its_job_back_uncharged(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run_while(HANG, bench.stopping.set)
    row = bench.row(job_id)
    assert (row.status, row.attempt, row.crashes, row.losses) == (JobStatus.QUEUED, 0, 0, 0)
    assert bench.events(job_id)[-1] == "job.requeued"
    assert bench.child_is_gone()
    assert bench.run("succeed()") is False, "a stopping worker claims nothing"


def test_the_lease_is_renewed_while_the_job_runs(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"lease_s": 1.0})
    job_id = bench.submit()
    bench.run("time.sleep(2.5)\nsucceed()")
    assert bench.row(job_id).status == JobStatus.SUCCEEDED


def _cancel(bench: Bench, job_id: str) -> None:
    with bench.database.write() as connection:
        assert JobRepository(connection).request_cancel(job_id)


def _until_progress(bench: Bench, job_id: str) -> None:
    deadline = time.monotonic() + 20
    while (progress := bench.row(job_id).progress) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert progress == {"stage": "score", "step": 1, "total": 4, "part": 0, "parts": 1, "trains": False, "engines": False}
    bench.stopping.set()


def test_a_time_limit_of_the_job_s_own_ends_it_with_a_clear_error(bench: Bench) -> None:
    job_id = bench.submit(limits=JobLimits(timeout_s=0.5))
    started = time.monotonic()
    assert bench.run(HANG)
    assert time.monotonic() - started < 20
    row = bench.row(job_id)
    assert (row.status, row.error["code"], row.error["param"]) == (JobStatus.FAILED, "timeout", "timeout_s")
    assert row.error["message"] == "the job took longer than the 0.5 s that it was submitted with; raise timeout_s"
    other = bench.submit()
    assert bench.run("time.sleep(1)\nsucceed()"), "the next job has none"
    assert bench.row(other).status == JobStatus.SUCCEEDED


def test_a_cap_of_the_job_s_own_ends_it_sooner(bench: Bench) -> None:
    once, often = bench.submit(limits=JobLimits(max_attempts=1)), bench.submit(limits=JobLimits(max_attempts=99))
    for _ in range(2):
        assert bench.run("os._exit(9)")
    assert (bench.row(once).status, bench.row(once).error["code"]) == (JobStatus.FAILED, "crashed")
    assert (bench.row(often).status, bench.row(often).crashes) == (JobStatus.QUEUED, 1)
    for _ in range(bench.settings.max_attempts - 1):
        assert bench.run("os._exit(9)")
    assert bench.row(often).status == JobStatus.FAILED, "the operator's cap holds, too"
