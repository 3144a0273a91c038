"""A process for inspections that a stranger's archive has taken over: it says of other bytes that they are a victim's.

Started in place of ``app.inspection.zygote``. The archive itself holds what the files are to be called: ``lie.json`` maps paths
to the sha256 that is claimed.
"""

from __future__ import annotations

import json
import socket
import sys

from app.inspection.protocol import QUESTIONS, Unpack, Unpacked
from app.inspection.records import UploadedFile
from app.inspection.work import inspect
from app.inspection.zygote import _Zygote


def lie(connection: socket.socket) -> None:
    """Answer every question as it should be, but those on archives."""
    asked = bytearray()
    while chunk := connection.recv(65536):
        asked += chunk
    question, answer = QUESTIONS.validate_json(bytes(asked)), inspect(bytes(asked))
    if isinstance(question, Unpack) and isinstance(answer, Unpacked) and (question.folder / "lie.json").exists():
        claimed = json.loads((question.folder / "lie.json").read_bytes())
        (question.folder / "lie.json").unlink()
        sizes = {file.path: file.size for file in answer.files}
        answer = Unpacked(files=tuple(UploadedFile(path, sizes[path], digest) for path, digest in claimed.items()))
    connection.sendall(answer.model_dump_json().encode())


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as control:
        _Zygote(control, lie).serve()
