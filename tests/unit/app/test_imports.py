"""What the local profile can do without: the libraries of the server's extras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# As in deploy/server/pyproject.toml, but for those of the worker, which the local profile has.
_EXTRAS = ("authlib", "boto3", "botocore", "joserfc", "opentelemetry.sdk", "psycopg", "redis")
_BUILDS = """
import sys
sys.modules.update(dict.fromkeys({absent!r}))  # None there: as if not installed
from pathlib import Path
from app.main import create_app
from app.settings import Settings
from worker.main import create_worker
settings = Settings(data_dir=Path("data"))
create_app(settings)
create_worker(settings)
print("built")
"""


def test_api_and_worker_of_the_local_profile_need_no_extra(tmp_path: Path) -> None:
    code = _BUILDS.format(absent=_EXTRAS)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "built", done.stderr[-2000:]
