"""What importing costs: the supervising process has no torch, and nothing happens by importing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["worker.main", "worker.supervisor", "worker.reaper", "worker.runner", "worker.tasks"])
def test_the_worker_s_modules_do_not_load_torch(module: str, tmp_path: Path) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'pyarrow'}"
    _python(f"import sys, {module}; found = {heavy} & set(sys.modules); assert not found, found", tmp_path)
    assert list(tmp_path.iterdir()) == [], "importing made files"


def test_a_built_worker_has_its_task_and_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from app.settings import Settings; from worker.main import create_worker;"
        "celery = create_worker(Settings(data_dir=Path('data'))); assert 'coppice.run_job' in celery.tasks;"
        "assert celery.conf.task_acks_late and not celery.conf.task_reject_on_worker_lost; assert 'torch' not in sys.modules"
    )
    _python(code, tmp_path)


def _python(code: str, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COPPICE_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
