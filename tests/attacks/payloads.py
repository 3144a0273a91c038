"""What attacks are made of: tar headers block by block, compressed streams, safetensors files, and models that carry them."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.contract.archives import contents, packed

END = b"\0" * 1024


def block(
    name: str | bytes = b"a.json", *, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "", raw_size: bytes = b""
) -> bytes:
    """Write one tar header. ``raw_size`` replaces the bytes of the size."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.linkname = kind, link
    entry.size = size
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")[:512])
    named = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    header[:100] = named[:100].ljust(100, b"\0")
    if raw_size:
        header[124:136] = raw_size.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def padded(body: bytes) -> bytes:
    """Fill up to a whole block."""
    return body + b"\0" * (-len(body) % 512)


def file(name: str | bytes, body: bytes = b"{}") -> bytes:
    """Write a file's header and body."""
    return block(name, size=len(body)) + padded(body)


def pax(records: Mapping[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Write a pax header."""
    lines = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode("utf-8", "surrogateescape")
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        lines += str(length).encode() + rest
    return block("pax", size=len(lines), kind=kind) + padded(lines)


def squeezed(pieces: Iterable[bytes], level: int = 9) -> bytes:
    """Compress a stream of pieces by gzip; the stream itself is never in memory."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(piece) for piece in pieces), packer.flush()])


def repeated(piece: bytes, times: int) -> Iterator[bytes]:
    """Repeat a piece, in larger ones."""
    whole, rest = divmod(times, 512)
    for _ in range(whole):
        yield piece * 512
    yield piece * rest


def model(folder: Path, changes: Mapping[str, bytes | None]) -> bytes:
    """Pack an honest model with some of its files replaced; None leaves one out."""
    files = contents(folder) | changes
    return packed({name: body for name, body in files.items() if body is not None})


def with_entries(folder: Path, name: str, entries: Mapping[str, Any]) -> bytes:
    """Pack an honest model with further entries in one of its JSON files."""
    path = folder / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    return model(folder, {name: json.dumps(before | dict(entries)).encode()})


def weights(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    """Write a safetensors file by its header."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


def tensor(shape: str, *, dtype: str = "F32", offsets: str = "[0,4]", name: str = "a") -> bytes:
    """Write a safetensors file of one tensor, by the text of its shape."""
    return weights(f'{{"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}'.encode(), b"\0" * 4)


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """Write a PNG that claims a size."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body or zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def png_bomb(side: int) -> bytes:
    """Write a PNG of black pixels that is as large as it says."""
    packer = zlib.compressobj(9)
    body = b"".join([*(packer.compress(b"\0" * (3 * side + 1)) for _ in range(side)), packer.flush()])
    return png(side, side, body)


def tiff() -> bytes:
    """Write a tiny TIFF, by pillow."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "TIFF")
    return buffer.getvalue()


def webp(frames: int) -> bytes:
    """Write an animated WebP."""
    from PIL import Image

    draw = random.Random(0)
    images = [Image.new("RGB", (64, 64), (draw.randrange(256), draw.randrange(256), 0)) for _ in range(frames)]
    buffer = io.BytesIO()
    images[0].save(buffer, "WEBP", save_all=True, append_images=images[1:])
    return buffer.getvalue()


def gzip_members(count: int) -> bytes:
    """Write a stream of empty gzip members."""
    return gzip.compress(b"") * count
