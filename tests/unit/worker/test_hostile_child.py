"""What a child leaves is a stranger's: links, pipes and floods of it lead the supervisor nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.jobs.states import JobStatus
from tests.unit.worker.conftest import Bench
from worker.protocol import ChildUnreliable, Scratch

CANARY = "another tenant's row"
LEFT = {
    "a link to a file": "(scratch / 'bundle' / 'notes.txt').symlink_to(canary)",
    "a link to a folder": "(scratch / 'bundle' / 'notes').symlink_to(canary.parent)",
    "a second name of a file": "os.link(canary, scratch / 'bundle' / 'notes.txt')",
    "a pipe": "os.mkfifo(scratch / 'bundle' / 'notes.txt')",
    "a report that is a link": "(scratch / 'result.json').unlink(); (scratch / 'result.json').symlink_to(canary)",
    "a report that is a pipe": "(scratch / 'result.json').unlink(); os.mkfifo(scratch / 'result.json')",
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
