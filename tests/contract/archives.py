"""Archives as clients send them, and as clients should not."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

TAR_TYPE = "application/x-tar"
TAR = {"content-type": TAR_TYPE}


def packed(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """Pack files into a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """Read the files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
