"""Archives that are none: bombs of headers, names that lead out, kinds that are no files, streams that never end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.attacks.attack import UPLOAD, Attack, Expected, refused
from tests.attacks.payloads import END, block, file, gzip_members, pax, repeated, squeezed
from tests.attacks.target import Target
from tests.attacks.wire import Answer

_MIB = 2**20


def _send(target: Target, archive: Any, kind: str = "datasets") -> Answer:
    return target.upload(kind, archive)


def upload(
    name: str,
    make: Callable[[], Any],
    *,
    row: str = "",
    short: bool = False,
    kind: str = "datasets",
    expected: Expected = UPLOAD,
) -> Attack:
    """Make the attack that sends an archive."""
    return Attack(name, partial(_send, kind=kind), expected, make, row, short)


def _folders(count: int) -> bytes:
    return squeezed(repeated(block("d/", kind=tarfile.DIRTYPE), count))


def _distinct_folders(count: int) -> bytes:
    return squeezed(block(f"d{index}/", kind=tarfile.DIRTYPE) for index in range(count))


def _named(name: str | bytes) -> Callable[[], bytes]:
    return lambda: file("train.jsonl", b"{}\n") + file(name, b"{}\n") + END


def _kind(kind: bytes, link: str = "") -> Callable[[], bytes]:
    return lambda: file("train.jsonl", b"{}\n") + block("b.jsonl", kind=kind, link=link) + END


def _many(target: Target, archive: bytes) -> list[Answer]:
    """Forty at once, whose clients then go away."""
    from tests.attacks.wire import connect, head

    wires = []
    for _ in range(40):
        wire = connect(target.port)
        headers = target.headers(extra={"Host": "x", "Content-Type": "application/x-tar", "Content-Length": str(len(archive))})
        wire.sendall(head("POST", "/v1/datasets", headers))
        wires.append(wire)
    for wire in wires:
        wire.setblocking(False)
        try:
            wire.send(archive[: len(archive) // 2])
        except OSError:
            continue
    for wire in wires:
        wire.close()
    return [target.upload("datasets", archive)]


def _endless() -> Iterator[bytes]:
    """Zeros for as long as somebody takes them, at most for some hundred megabytes."""
    yield block("train.jsonl", size=2**33)
    for _ in range(600):
        yield b"\0" * _MIB


def _stream(target: Target, _made: None) -> Answer:
    return target.upload("datasets", _endless(), timeout_s=60)


def _declared(target: Target, _made: None) -> Answer:
    """A body that is larger than everything allowed, by its declared length: refused before it comes."""
    answer = target.upload("datasets", b"", Content_Length=str(2**40))
    assert answer.seconds < 5, "it waited for the body"
    return answer


def _quota(target: Target, _made: None) -> Answer:
    """A body within the limit of one upload and above what the owner may still have: asked before it is received."""
    answer = target.upload("datasets", (b"\0" * _MIB for _ in range(300)), timeout_s=60)
    assert answer.sent < 300 * _MIB, "all of it was taken"
    return answer


def _bytes_left(target: Target, made: bytes) -> Answer:
    """What a refused archive had unpacked is gone when the answer comes."""
    folder = target.service.backend.data_dir

    def size() -> int:
        found = 0
        for path in folder.rglob("*"):
            try:
                found += path.stat().st_blocks * 512 if path.is_file() else 0
            except OSError:
                continue
        return found

    before = size()
    answer = target.upload("datasets", made, timeout_s=60)
    assert size() < before + 4 * _MIB, "the disk kept some of it"
    return answer


def _raw_size(field: bytes) -> bytes:
    return block("train.jsonl", raw_size=field) + b"\0" * 512 + END


def _with_200_mib() -> bytes:
    """An archive of 200 MiB that is refused at its last member."""
    return squeezed([block("train.jsonl", size=200 * _MIB), *(b"\0" * _MIB for _ in range(200)), _kind(tarfile.FIFOTYPE)()])


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.jsonl", "{}\n")
    return buffer.getvalue()


_GOOD = file("train.jsonl", b'{"sentence": "a", "label": 0}\n') + file("validation.jsonl", b'{"sentence": "a", "label": 0}\n')

ATTACKS = [
    upload("a million folders of one name", lambda: _folders(1_000_000), row="C3"),
    upload("a hundred thousand folders", lambda: _distinct_folders(100_000), row="C3", short=True),
    Attack("forty bombs of folders at once", _many, UPLOAD, lambda: _folders(1_000_000), "C3", limit_s=60),
    upload("a flood of pax headers", lambda: squeezed(repeated(pax({"comment": "x" * 400}), 200_000)), row="C3"),
    upload("a flood of global pax headers", lambda: squeezed(repeated(pax({"a": "b"}, tarfile.XGLTYPE), 300_000)), row="C3"),
    upload("a pax header of 64 MiB", lambda: block("pax", size=2**26, kind=tarfile.XHDTYPE) + b"\0" * 2**26, row="C3"),
    upload(
        "a chain of long names",
        lambda: squeezed(repeated(block("L", size=8, kind=b"L") + b"a.jsonl\0".ljust(512, b"\0"), 300_000)),
    ),
    upload("a long name of gigabytes", lambda: block("L", size=2**32, kind=b"L") + b"x" * 4096, short=True),
    upload("pax lengths that lie", lambda: block("p", size=512, kind=b"x") + b"99999 a=b\n".ljust(512, b"\0") + END),
    upload("a pax size of many digits", lambda: pax({"size": "9" * 5000}) + file("train.jsonl") + END),
    upload("a negative size", lambda: _raw_size(b"\xff" * 12), short=True),
    upload("a size that is no number", lambda: _raw_size(b"zzzzzzzzzzz\0")),
    upload("a size of 2^62", lambda: _raw_size(b"\x80" + (2**62).to_bytes(11, "big"))),
    upload(
        "a sparse file", lambda: pax({"GNU.sparse.major": "1", "GNU.sparse.realsize": str(2**50)}) + file("train.jsonl") + END
    ),
    upload("an old sparse file", lambda: block("train.jsonl", size=512, kind=b"S") + b"\0" * 512 + END),
    upload("a symbolic link", _kind(tarfile.SYMTYPE, "/etc/passwd"), short=True),
    upload("a hard link", _kind(tarfile.LNKTYPE, "train.jsonl")),
    upload("a link by a pax header", lambda: pax({"linkpath": "/etc/passwd"}) + file("train.jsonl") + END),
    upload("a FIFO", _kind(tarfile.FIFOTYPE)),
    upload("a device of characters", _kind(tarfile.CHRTYPE)),
    upload("a device of blocks", _kind(tarfile.BLKTYPE)),
    upload("a kind that nobody knows", _kind(b"Z")),
    upload("an absolute name", _named("/etc/cron.d/evil.json"), short=True),
    upload("a name with ..", _named("../../evil.json")),
    upload("a name with .. inside", _named("a/../../evil.json")),
    upload("a name with backslashes", _named("..\\..\\evil.json")),
    upload("a name with NUL", lambda: pax({"path": "train.jsonl\0.json"}) + file("x.jsonl") + END),
    upload("a name with a line break", _named("a\nb.jsonl")),
    upload("a name with a terminal's escapes", _named("\x1b[2Ja.jsonl")),
    upload("a name that turns around", _named("a\u202elnosj.txt")),
    upload("a name of combined letters", _named("tra\u0301in.jsonl")),
    upload("a name of full-width letters", _named("\uff54rain.jsonl")),
    upload("a name that is no UTF-8", _named(b"a\xff\xfe.jsonl")),
    upload("a name of lone surrogates", _named(b"a\xed\xa0\x80.jsonl")),
    upload("a hidden name", _named(".ssh.json")),
    upload("a name of only dots", _named("...")),
    upload("a name too deep", _named("a/b/c/d/e/f.jsonl")),
    upload("the same name twice", lambda: _GOOD + file("train.jsonl", b"x") + END, short=True),
    upload("a file and a folder of one name", lambda: _GOOD + file("a.jsonl") + file("a.jsonl/b.jsonl") + END),
    upload("ten thousand files", lambda: b"".join(file(f"f{index}.jsonl", b"") for index in range(10_000)) + END),
    upload(
        "a gzip bomb of zeros",
        lambda: squeezed([block("train.jsonl", size=2**33), *(b"\0" * _MIB for _ in range(1024))]),
        row="M7",
    ),
    upload(
        "a gzip bomb behind the end",
        lambda: squeezed([_GOOD, END, *(b"\0" * _MIB for _ in range(2048))]),
        expected=Expected(UPLOAD.statuses | {201, 200}, UPLOAD.codes),
    ),
    upload("a million gzip members", lambda: gzip_members(1_000_000)),
    upload("gzip in gzip", lambda: gzip.compress(gzip.compress(_GOOD + END))),
    upload("a gzip stream cut off", lambda: gzip.compress(_GOOD + END)[:-20], short=True),
    upload("a gzip stream of rubbish", lambda: b"\x1f\x8b" + b"\xff" * 4096),
    upload("a tar cut off in a file", lambda: block("train.jsonl", size=4096) + b"x" * 100, short=True),
    upload("rubbish in the middle", lambda: _GOOD + b"\xff" * 512 + END),
    upload("a file of nothing", lambda: b"", short=True),
    upload("xz that says tar", lambda: lzma.compress(_GOOD + END)),
    upload("bzip2 that says tar", lambda: bz2.compress(_GOOD + END)),
    upload("zip that says tar", _zip),
    upload("zstd that says tar", lambda: b"\x28\xb5\x2f\xfd" + b"\0" * 512),
    upload("pickles in the archive", lambda: _GOOD + file("model.pkl", b"\x80\x04.") + END, short=True),
    upload("ONNX files in the archive", lambda: _GOOD + file("model.onnx", b"\x08\x07" + b"\xff" * 400) + END),
    upload("Python in the archive", lambda: _GOOD + file("train.py", b"import os") + END),
    upload("only folders", lambda: block("a/", kind=tarfile.DIRTYPE) + END),
    Attack("a stream without an end", _stream, UPLOAD, row="M7", limit_s=90),
    Attack("a declared length of a terabyte", _declared, UPLOAD, row="M7", short=True),
    Attack("a stream above the limit of one upload", _quota, UPLOAD, row="M7", limit_s=90),
    Attack("a refused archive leaves nothing on the disk", _bytes_left, UPLOAD, _with_200_mib, "M7", limit_s=90),
    Attack(
        "an upload of a type that is none",
        lambda target, _made: target.upload("datasets", b"x", Content_Type="text/html"),
        refused("unsupported_media_type", statuses=(415, 422)),
        short=True,
    ),
]
