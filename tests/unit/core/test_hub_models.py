"""A model of the Hub is seen by the job first, which says of it what a submit says of a folder."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import tasks
from tests.families import ARCHITECTURES


@pytest.mark.slow
@pytest.mark.long
def test_a_cached_model_that_cannot_do_the_task_is_refused_before_it_is_loaded(tmp_path):
    repository = tmp_path / "hub" / "models--org--name"
    ARCHITECTURES["t5"].write_for("summarization", repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    data = tasks.write_task_data(tmp_path / "data", "fill-mask", rows=4)
    words = ["--model", "org/name", "--task", "fill-mask", "--data", data, "--text", "text", "--macs-keep", "0.5"]
    done = subprocess.run(
        [sys.executable, "-m", "coppice.cli", "run", *map(str, words), "--out", str(tmp_path / "out")],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--task: model type 't5' cannot do fill-mask" in done.stderr
    assert not (tmp_path / "out").exists()
