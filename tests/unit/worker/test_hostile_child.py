"""What a child leaves is a stranger's: links, pipes and floods of it lead the supervisor nowhere."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from app.jobs.records import EventType
from app.jobs.states import JobStatus
from app.logs import configure_logging
from pruning_core.report.progress import Progress
from tests.unit.worker.conftest import Bench
from worker.protocol import ChildUnreliable, Scratch
from worker.scratch import ScratchRoom

CANARY = "another tenant's row"
LEFT = {
    "a link to a file": "(scratch / 'bundle' / 'notes.txt').symlink_to(canary)",
    "a link to a folder": "(scratch / 'bundle' / 'notes').symlink_to(canary.parent)",
    "a second name of a file": "os.link(canary, scratch / 'bundle' / 'notes.txt')",
    "a pipe": "os.mkfifo(scratch / 'bundle' / 'notes.txt')",
    "a report that is a link": "(scratch / 'result.json').unlink(); (scratch / 'result.json').symlink_to(canary)",
    "a report that is a pipe": "(scratch / 'result.json').unlink(); os.mkfifo(scratch / 'result.json')",
    "a name that is no text": "(scratch / 'bundle' / os.fsdecode(b'\\xff')).write_text('')",
    "a name that leads out on other systems": "(scratch / 'bundle' / '..\\\\..\\\\evil.exe').write_text('')",
    "a name of two lines": "(scratch / 'bundle' / 'a\\nb').write_text('')",
    "a name too long for the store": "(scratch / 'bundle' / ('a' * 255)).write_text('')",
    "a name too deep": "(scratch / 'bundle' / '/'.join('a' * 20)).mkdir(parents=True)",
    "very many files": "[(scratch / 'bundle' / str(n)).touch() for n in range(10_001)]",
    "a file with holes": "(scratch / 'bundle' / 'x').touch(); os.truncate(scratch / 'bundle' / 'x', 2**43)",
    "a report too deep": "(scratch / 'result.json').write_text('[' * 10**6)",
    "a bundle that is a link": "(scratch / 'bundle').rename(scratch / 'other'); (scratch / 'bundle').symlink_to(canary.parent)",
}


@pytest.mark.parametrize("left", LEFT)
def test_nothing_of_others_is_published(left: str, bench: Bench) -> None:
    canary = bench.notes / "others" / "canary"
    canary.parent.mkdir()
    canary.write_text(CANARY)
    job_id = bench.submit()
    bench.run(f"succeed()\ncanary = Path({str(canary)!r})\n{LEFT[left]}")
    row = bench.row(job_id)
    assert (row.status, row.crashes, row.report) == (JobStatus.QUEUED, 1, None)
    assert bench.artifacts(job_id) == []
    assert not [path for path in bench.settings.resolved_artifacts_dir.rglob("*") if path.is_file()]
    bench.run("succeed()")
    assert bench.row(job_id).status == JobStatus.SUCCEEDED


@pytest.mark.parametrize("script", ["progress.write('x' * 10**8)", "progress.write('x' * 10**8 + '\\n'); tell('score', 1, 2)"])
def test_a_flood_on_the_pipe_takes_no_memory(script: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    longest: list[int] = []
    parse = type(bench.supervisor("")).__init__.__globals__["Progress"].model_validate_json
    monkeypatch.setattr("worker.child.Progress.model_validate_json", lambda line: longest.append(len(line)) or parse(line))
    bench.submit()
    bench.run(f"{script}\nsucceed()")
    assert max(longest) <= 4096


def test_what_is_not_a_plain_file_of_bounded_size_is_not_read(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    (tmp_path / "file").write_text("own")
    assert scratch.read(tmp_path / "file") == "own"
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**27)
    (tmp_path / "binary").write_bytes(b"\xff")
    for name in ("large", "binary", "missing", "."):
        with pytest.raises(ChildUnreliable):
            scratch.read(tmp_path / name)


def test_what_a_child_prints_passes_for_nothing_else_and_ends(
    bench: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no descriptor of the log, whose file it could empty, and whose pipe it could read."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    # The log is one of the whole process, and so is what others left of it: `logging.disable` has silenced it before.
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    for name in ("worker", "worker.child", "worker.supervisor"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        logging.getLogger(name).setLevel(logging.NOTSET)
    configure_logging(as_json=True)
    monkeypatch.setattr("worker.child._MOST_LOGGED", 10_000)
    forged = json.dumps({"event": "audit.key_created", "tenant": "acme"})
    job_id = bench.submit()
    log = str(Path(f"/proc/self/fd/{sys.stderr.fileno()}").readlink())
    bench.run(
        f"print({forged!r}); print('\\x1b[2J', end='\\r\\n', flush=True)\n"
        "(NOTES / 'descriptors').write_text(' '.join(os.readlink(f'/proc/self/fd/{n}') for n in (1, 2)))\n"
        "for _ in range(1000): print('x' * 1000)\n"
        "succeed()"
    )
    structlog.reset_defaults()
    printed = capfd.readouterr().err
    lines = [json.loads(line) for line in printed.splitlines()]
    own = logging.getLogger("worker.child")
    state = (logging.root.manager.disable, own.disabled, own.getEffectiveLevel(), own.filters, logging.root.handlers)
    assert bench.row(job_id).status == JobStatus.SUCCEEDED, printed
    assert len(lines) > 2, (printed, state)
    assert {"event": "job.output", "text": forged, "job_id": job_id}.items() <= lines[1].items()
    assert not [line for line in lines if line["event"].startswith("audit")]
    assert "\x1b" not in printed
    assert log not in (bench.notes / "descriptors").read_text()
    assert len([line for line in lines if line["event"] == "job.output"]) < 20
    assert [line for line in lines if line["event"] == "job.output_too_long"]


DEEP = """
os.chdir(scratch / PLACE)
for _ in range(3000):
    os.mkdir("d"); os.chdir("d")
Path("file").write_text("x")
"""
CLOSED = """
(scratch / PLACE / "closed" / "inner").mkdir(parents=True)
(scratch / PLACE / "closed" / "inner" / "file").write_text("x")
(scratch / PLACE / "closed" / "inner").chmod(0)
(scratch / PLACE / "closed").chmod(0)
"""


@pytest.mark.parametrize("place", ["", "work", "bundle"])
@pytest.mark.parametrize("left", [DEEP, CLOSED], ids=["deep", "closed"])
def test_what_a_child_leaves_can_be_deleted(left: str, place: str, bench: Bench) -> None:
    job_id = bench.submit()
    bench.run(f"PLACE = {place!r}\nsucceed()\n{left}")
    if place != "bundle":
        assert bench.row(job_id).status == JobStatus.SUCCEEDED
    for attempt in ScratchRoom(bench.settings.resolved_scratch_dir).attempts():  # as the reaper does, once the job has ended
        attempt.delete()
    assert bench.scratch_is_empty()


def test_a_tree_is_deleted_by_an_ordinary_user(tmp_path: Path) -> None:
    """Root needs no permission."""
    script = f"""
import os
from pathlib import Path
from worker.scratch import delete_tree
top = Path({str(tmp_path)!r}, "top")
os.setuid(65534) if os.getuid() == 0 else None
(top / "closed" / "inner").mkdir(parents=True)
(top / "closed" / "inner" / "file").write_text("x")
(top / "link").symlink_to(Path({str(tmp_path)!r}))
for path in (top / "closed" / "inner", top / "closed", top):
    path.chmod(0)
delete_tree(top)
"""
    (tmp_path / "kept").write_text("x")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp") and folder.owner() != "nobody":
            folder.chmod(0o777)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_no_file_of_others_is_deleted_by_the_signer(bench: Bench) -> None:
    other = bench.notes / "others"
    other.mkdir()
    (other / "model.sig").write_text("the signature of another bundle")
    job_id = bench.submit()
    bench.run(f"succeed()\n(scratch / 'bundle').rename(scratch / 'moved'); (scratch / 'bundle').symlink_to({str(other)!r})")
    assert bench.row(job_id).crashes == 1
    assert (other / "model.sig").is_file()


def test_a_flood_of_stages_does_not_fill_the_database(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.supervisor._MOST_STAGES", 10)
    job_id = bench.submit()
    bench.run("for n in range(1000): tell(('load', 'score')[n % 2], 0, 1)\ntime.sleep(2.5)\nsucceed()")
    assert 0 < bench.events(job_id).count(str(EventType.STAGE)) <= 10
    assert bench.row(job_id).status == JobStatus.SUCCEEDED


def test_progress_beyond_all_numbers_is_ignored(bench: Bench) -> None:
    job_id = bench.submit()
    huge = {"stage": "score", "step": 0, "total": 1, "part": 10**1000}
    bench.run(f"tell('load', 0, 1)\nprogress.write({json.dumps(huge)!r} + '\\n')\ntime.sleep(0.5)\nsucceed()")
    assert bench.row(job_id).status == JobStatus.SUCCEEDED
    assert Progress.model_validate(bench.row(job_id).progress).stage == "load"


def test_an_error_is_told_in_text_that_every_database_takes(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run("fail(code='dataset_invalid', message='column a\\0b', param='x\\0')")
    assert "\0" not in bench.row(job_id).error["message"] + bench.row(job_id).error["param"]
