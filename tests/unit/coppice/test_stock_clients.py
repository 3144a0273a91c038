"""Stock clients of the Hugging Face Hub show their token as our key: no client of ours, and nobody else's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from coppice import Client
from tests.unit.coppice.conftest import FILES, Live

CODE = """
import sys
from huggingface_hub import snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
try:
    print(snapshot_download(sys.argv[1]))
except RepositoryNotFoundError:
    print("no such repository")
"""


def snapshot(live: Live, home: Path, repository: str, token: str | None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "COPPICE_"))}
    environment |= {"HF_ENDPOINT": f"{live.url}/hub", "HF_HOME": str(home)} | ({"HF_TOKEN": token} if token else {})
    done = subprocess.run(
        [sys.executable, "-c", CODE, repository], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_a_key_is_a_token_of_the_hub(guarded: Live, tmp_path: Path) -> None:
    mine, another_s = guarded.key("acme"), guarded.key("rival")
    with Client(guarded.url, api_key=mine) as client:
        client.submit(guarded.spec, job_id="nightly-7")
    guarded.succeed()
    folder = Path(snapshot(guarded, tmp_path / "mine", "jobs/nightly-7", mine))
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    for token in (another_s, None, "cpk_" + "A" * 43):
        assert snapshot(guarded, tmp_path / "other", "jobs/nightly-7", token) == "no such repository", token
