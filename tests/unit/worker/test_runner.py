"""The child by itself: a real process, started as the supervisor starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pruning_core.spec.prune import PruneSpec
from tests.tiny import tiny_spec
from worker.protocol import ChildExit, ChildRequest, Scratch


@pytest.mark.long
def test_an_error_that_a_user_can_act_on_is_written_down(tmp_path: Path) -> None:
    spec = PruneSpec.model_validate({"model": str(tmp_path / "nothing"), "task": "glue/sst2", "sparsity": 0.5})
    code, _progress, log = _run(tmp_path, spec)
    assert code == ChildExit.FAILED
    error = json.loads(Scratch(tmp_path).error.read_text())
    assert (error["code"], error["param"], error["transient"]) == ("model_unreadable", "model", False)
    assert "Traceback" not in log


def test_an_error_of_ours_keeps_its_details_in_the_log(tmp_path: Path) -> None:
    Scratch(tmp_path).request.write_text('{"spec": "secret nonsense"}')
    code, _progress, log = _run(tmp_path)
    assert code == ChildExit.FAILED
    error = json.loads(Scratch(tmp_path).error.read_text())
    assert error["code"] == "internal"
    assert "nonsense" not in error["message"]
    assert "ValidationError" in log


def test_a_child_without_its_parent_does_nothing(tmp_path: Path) -> None:
    spec = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
    code, progress, _log = _run(tmp_path, spec, parent=1)
    assert code == 1
    assert progress == []
    assert not Scratch(tmp_path).error.exists()


@pytest.mark.long
def test_a_run_writes_bundle_and_report_and_tells_every_stage(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    code, progress, log = _run(tmp_path, tiny_spec(tiny_bert, tiny_sst2))
    assert code == ChildExit.SUCCEEDED, log
    stages = list(dict.fromkeys(json.loads(line)["stage"] for line in progress))
    assert stages[0] == "load"
    assert stages[-1] == "bundle"
    scratch = Scratch(tmp_path)
    assert (
        json.loads(scratch.report.read_text())["target"] == json.loads((scratch.bundle / "report.json").read_text())["target"]
    )
    assert (scratch.bundle / "model.safetensors").is_file()


def test_the_child_is_the_first_that_the_kernel_kills(tmp_path: Path) -> None:
    watched = "from app.sandbox.ties import be_first_to_go; be_first_to_go(); print(open('/proc/self/oom_score_adj').read())"
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 500


def _run(folder: Path, spec: PruneSpec | None = None, *, parent: int | None = None) -> tuple[int, list[str], str]:
    if spec is not None:
        request = ChildRequest(spec=spec, device="cpu", threads=1)
        Scratch(folder).request.write_text(request.model_dump_json())
    reader, writer = os.pipe()
    with os.fdopen(reader) as lines:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker.runner", str(folder), str(writer), str(parent or os.getpid())],
                pass_fds=(writer,),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            os.close(writer)
        progress = lines.read().splitlines()
    _, log = process.communicate(timeout=200)
    return process.returncode, progress, log
