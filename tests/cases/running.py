"""Running a case: a copy of its folder, its run.sh in a process group of its own, and a record of each call of ``coppice``."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LARGEST_LOG = 4 * 2**20
_LIBRARY = re.compile(r"\.\./(lib-[\w-]+)")

# `coppice` as users call it, which also writes down how it ended: a case may show the last line of its output alone.
_COPPICE = """\
import json, os, sys, traceback
from coppice.cli import main
sys.argv[0] = "coppice"
code, trace = 0, None
try:
    main()
except SystemExit as error:
    code = error.code if isinstance(error.code, int) else int(error.code is not None)
except BaseException:
    code, trace = 1, traceback.format_exc()
    sys.stderr.write(trace)
with open(os.environ["COPPICE_CASE_CALLS"], "a") as calls:
    said = {"arguments": sys.argv[1:], "code": code, "traceback": trace, "path": os.environ.get("COPPICE_CASE_PATH", "")}
    calls.write(json.dumps(said) + chr(10))
sys.exit(code)
"""


@dataclass(frozen=True)
class Call:
    """One call of ``coppice``: ``path`` is the PYTHONPATH that the case had set for it."""

    arguments: tuple[str, ...]
    code: int
    traceback: str | None
    path: str


@dataclass(frozen=True)
class Ran:
    """What came of a case.

    Attributes:
        output: Standard output and standard error of run.sh.
        logs: Text of the logs in its folder ``work``, by name.
        calls: Every call of ``coppice``.
        code: Exit code of run.sh; None where its time was up.
        seconds: How long it took.
        missing: Libraries that it names and that lie nowhere.
    """

    output: str
    logs: dict[str, str]
    calls: tuple[Call, ...]
    code: int | None
    seconds: float
    missing: tuple[str, ...] = field(default=())


def libraries_of(case: Path) -> tuple[str, ...]:
    """Name the folders of further libraries that a case takes from beside it."""
    return tuple(sorted(set(_LIBRARY.findall((case / "run.sh").read_text(encoding="utf-8")))))


def run_case(case: Path, place: Path, *, libraries: Sequence[Path], limit_s: float) -> Ran:
    """Run a copy of a case, beside copies of the files that its folder's neighbours share.

    Args:
        case: Folder with a run.sh.
        place: Empty folder for the copy.
        libraries: Folders that libraries (``lib-NAME``) may lie in, beside the case's own.
        limit_s: Seconds that it may take.
    """
    own = place / case.name
    shutil.copytree(case, own)
    for sibling in case.parent.iterdir():
        # Beside the case, and in it too: a case may set a PYTHONPATH that leaves its neighbours out.
        for target in (place, own):
            if sibling.is_file() and not (target / sibling.name).exists():
                shutil.copy(sibling, target)
    for path in [own, *own.rglob("*")]:  # what is shared may be read-only
        path.chmod(path.stat().st_mode | 0o200)
    _take_free_port(own)
    missing: list[str] = []
    for name in libraries_of(case):
        found = next((folder / name for folder in (case.parent, *libraries) if (folder / name).is_dir()), None)
        if found is None:
            missing.append(name)
        else:
            (place / name).symlink_to(found.resolve())
    calls = place / "calls.jsonl"
    begun = time.monotonic()
    code, output = _run(own, place, calls, limit_s)
    return Ran(
        output,
        dict(_logs(own / "work")),
        tuple(_calls(calls)),
        code,
        time.monotonic() - begun,
        tuple(missing),
    )


def _run(own: Path, place: Path, calls: Path, limit_s: float) -> tuple[int | None, str]:
    python = _script(place / "bin" / "python", '"$@"')
    (place / "bin" / "called.py").write_text(_COPPICE, encoding="utf-8")
    coppice = _script(place / "bin" / "coppice", f'-P "{place}/bin/called.py" "$@"')
    environment = os.environ | {
        "COPPICE": str(coppice),
        "PY": str(python),
        "COPPICE_CASE_CALLS": str(calls),
        "PYTHONPATH": "",
        "XDG_CACHE_HOME": str(place / "cache"),
        "TMPDIR": str(place / "tmp"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    (place / "tmp").mkdir()
    log = place / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", str(own / "run.sh")],
            cwd=own,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
        code: int | None = None
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(limit_s)
        finally:
            with suppress(ProcessLookupError):  # what it left in the background ends with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, _text(log)


def _script(path: Path, arguments: str) -> Path:
    """Write a command that runs this checkout, whatever PYTHONPATH the case sets: the checkout comes after it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "#!/bin/bash\n"
        'export COPPICE_CASE_PATH="$PYTHONPATH"\n'
        f'PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{ROOT}" exec "{sys.executable}" {arguments}\n',
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


def _take_free_port(own: Path) -> None:
    """Replace the port of a case's own server by one that is free, so that cases and checkouts run side by side."""
    script = own / "run.sh"
    text = script.read_text(encoding="utf-8")
    if "127.0.0.1:" not in text:
        return
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d{4,5})", text))):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            text = re.sub(rf"\b{port}\b", str(probe.getsockname()[1]), text)
    script.write_text(text, encoding="utf-8")


def _logs(work: Path) -> Iterator[tuple[str, str]]:
    if work.is_dir():
        for path in sorted(work.iterdir()):
            if path.is_file() and (path.suffix in (".log", ".err") or path.name == "log"):
                yield path.name, _text(path)


def _calls(path: Path) -> Iterator[Call]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            said = json.loads(line)
            yield Call(tuple(said["arguments"]), said["code"], said["traceback"], said["path"])


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LARGEST_LOG).decode("utf-8", "replace")
