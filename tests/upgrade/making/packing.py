"""From a folder and a database to files of the repository: the same content gives the same bytes, whoever packs it."""

from __future__ import annotations

import gzip
import io
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path


def pack(archive: Path, files: Mapping[str, Path | str]) -> None:
    """Write a tar.gz of folders, of files, and of texts.

    Args:
        archive: Where to.
        files: By name: a folder or a file to be packed under it, or the text of a file.
    """
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as packed,
    ):
        for name, content in files.items():
            if isinstance(content, str):
                entry = tarfile.TarInfo(name)
                entry.size = len(content.encode())
                packed.addfile(entry, io.BytesIO(content.encode()))
            else:
                packed.add(content, arcname=name, filter=_nobodys)


def settle(database: Path) -> None:
    """Bring what SQLite keeps beside a database into its file. Raises where the file is not whole."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    found = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    assert found == ("ok",), found
    assert not database.with_name(f"{database.name}-wal").exists()


def dump(url: str) -> str:
    """Give a PostgreSQL database as SQL that any client can run: rows as INSERTs, and no commands of psql's own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=lambda path: int(path.parts[-3]))
    program = str(programs[-1]) if programs else shutil.which("pg_dump")
    assert program is not None, "pg_dump is not installed"
    command = [program, "--inserts", "--no-owner", "--no-privileges", url.replace("+psycopg", "")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in text.splitlines() if not line.startswith(("\\", "--"))]
    return "\n".join(line for line in lines if line.strip()) + "\n"


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
