"""Content lies under its hash, for all tenants. Who computes it, of which bytes, and what the process that read them may do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.inspection import process
from app.inspection.content import seal
from app.inspection.process import Zygote
from app.inspection.records import UploadedFile, UploadKind
from app.refusals import Refused
from app.sandbox import landlock
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.contract.test_security import key_of


@pytest.fixture
def zygote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zygote]:
    """The process of `tests.contract.liar`, for the applications of this module."""
    monkeypatch.setattr(process, "_COMMAND", (sys.executable, "-P", "-m", "tests.contract.liar"))
    own = Zygote()
    yield own
    own.close()


def test_nobody_gets_other_bytes_under_the_id_of_a_victim_s_data(make_api: Callable[..., Api]) -> None:
    """The attacker's came first, and lay under the id; the victim's own upload was then thrown away as known."""
    api = make_api("", auth=True, secret="s" * 40)
    attacker, victim = key_of(api, "attacker"), key_of(api, "victim")
    good = contents(Path(api.body["data"]))
    bad = {name: bytes(reversed(content)) for name, content in good.items()}
    claimed = {name: hashlib.sha256(content).hexdigest() for name, content in good.items()}
    lying = packed({**bad, "lie.json": json.dumps(claimed).encode()})
    assert_problem(api.client.post("/v1/datasets", content=lying, headers=attacker | TAR), 422, "upload_invalid")
    sent = api.client.post("/v1/datasets", content=packed(good), headers=victim | TAR)
    assert sent.status_code == 201, sent.text
    kept = api.client.app.state.uploads.folder(sent.json()["id"])
    assert contents(kept) == good


def _said(folder: Path) -> list[UploadedFile]:
    return [UploadedFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in contents(folder).items()]


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda folder: (folder / "train.jsonl").write_bytes(b"other"),
    "longer": lambda folder: (folder / "train.jsonl").write_bytes(b"train "),
    "a file more": lambda folder: (folder / "more.jsonl").write_bytes(b""),
    "a file less": lambda folder: (folder / "train.jsonl").unlink(),
    "a link": lambda folder: (folder / "a.jsonl").symlink_to("/etc/passwd"),
    "a link to a folder": lambda folder: (folder / "a").symlink_to("/etc"),
    "a second name of a file elsewhere": lambda folder: os.link(folder / "train.jsonl", folder.parent / "elsewhere"),
    "a pipe": lambda folder: os.mkfifo(folder / "a.jsonl"),
    "a pickle": lambda folder: (folder / "a.bin").write_bytes(b""),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_folder_that_is_not_what_was_said_is_not_kept(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "content"
    (folder / "inner").mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(b"train")
    (folder / "inner" / "a.png").write_bytes(b"")
    said = _said(folder)
    seal(folder, UploadKind.DATASET, said)
    CHANGES[name](folder)
    with pytest.raises((ValueError, Refused)):
        seal(folder, UploadKind.DATASET, said)


_TRIES = """
import json, os, sys
from pathlib import Path
from app.inspection.confinement import gain_no_privileges, keep_to
own, other, out = map(Path, sys.argv[1:])
gain_no_privileges()
keep_to([own], [out])
import tarfile, sqlite3, csv  # libraries can still be found
def may(what):
    try:
        what()
    except OSError:
        return False
    return True
print(json.dumps({
    "reads its own": may(lambda: (own / "a").read_bytes()),
    "writes its own": may(lambda: (out / "a").write_bytes(b"") and (out / "a").rename(out / "b")),
    "makes a folder": may(lambda: (out / "c").mkdir()),
    "writes what it reads": may(lambda: (own / "a").write_bytes(b"")),
    "reads another's": may(lambda: (other / "a").read_bytes()),
    "lists another's": may(lambda: os.listdir(other)),
    "writes another's": may(lambda: (other / "b").write_bytes(b"")),
    "makes a link": may(lambda: (out / "d").symlink_to("/etc")),
    "gives another's a second name": may(lambda: os.link(other / "a", out / "e")),
    "reads the environment of its parent": may(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()),
    "reads the system's users": may(lambda: Path("/etc/passwd").read_bytes()),
}))
"""


@pytest.mark.skipif(landlock.version() < 2, reason="the kernel has no Landlock that allows renaming")
def test_a_process_that_was_taken_over_reaches_its_own_files_alone(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("own", "other", "out")]
    for folder in folders:
        folder.mkdir()
        (folder / "a").write_bytes(b"x")
    line = [sys.executable, "-c", _TRIES, *map(str, folders)]
    ran = subprocess.run(line, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    found = json.loads(ran.stdout)
    assert {what for what, worked in found.items() if worked} == {"reads its own", "writes its own", "makes a folder"}
