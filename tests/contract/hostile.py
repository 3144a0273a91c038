"""Archives and folders of attackers: small to send, large to read."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Mapping

from tests.contract.archives import packed


def safetensors(header: bytes | object, data: bytes = b"") -> bytes:
    """Make a safetensors file of any header."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


def tensor(shape: object, dtype: str = "F32", offsets: object = (0, 0)) -> dict[str, object]:
    """Make one entry of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def many_digits(axes: int = 20_000, digits: int = 4300) -> bytes:
    """A header whose shape has thousands of axes, each a number of thousands of digits."""
    shape = ",".join(["9" * digits] * axes)
    return safetensors(f'{{"w":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}'.encode(), bytes(4))


def many_lists(size: int = 15 * 2**20) -> bytes:
    """A header of a million empty lists, which take thirty times as much in memory."""
    return safetensors(b'{"w":[' + b",".join([b"[]"] * (size // 3)) + b"]}")


def many_keys(count: int = 190_000) -> bytes:
    """A header that names as many tensors as are taken, none of which has a byte."""
    entry = json.dumps(tensor([0])).encode()
    return safetensors(b"{" + b",".join(b'"%d":%b' % (index, entry) for index in range(count)) + b"}")


def model_with(model: Mapping[str, bytes], weights: bytes, mode: str = "w:gz") -> bytes:
    """Pack a model whose weights are others."""
    return packed({**model, "model.safetensors": weights}, mode)


def repeated(block: bytes, times: int) -> bytes:
    """Compress a block many times over."""
    packer = zlib.compressobj(6, wbits=31)
    some = block * 1000
    return b"".join([*(packer.compress(some) for _ in range(times // 1000)), packer.flush()])


def many_folders(times: int = 1_000_000) -> bytes:
    """An archive of folders and nothing else."""
    folder = tarfile.TarInfo("a/")
    folder.type = tarfile.DIRTYPE
    return repeated(folder.tobuf(), times)


def many_extensions(times: int = 200_000, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An archive of extended headers that extend nothing."""
    extension = tarfile.TarInfo("x")
    record = b"20 comment=%s\n" % (b"x" * 8)
    extension.type, extension.size = kind, len(record)
    return repeated(extension.tobuf() + record.ljust(512, b"\0"), times)


def huge_extensions(times: int = 4000) -> bytes:
    """An archive of extended headers that are as long as they may be."""
    extension = tarfile.TarInfo("x")
    extension.type, extension.size = tarfile.XHDTYPE, 64 * 1024
    record = f"65536 comment={'x' * (65536 - len('65536 comment=') - 1)}\n".encode()
    return repeated(extension.tobuf() + record, times)


def empty_members(archive: bytes, times: int = 200_000) -> bytes:
    """A gzip file whose members are empty but for the last."""
    return gzip.compress(b"") * times + gzip.compress(archive)


def entries(*items: tuple[str, bytes, bytes, str]) -> bytes:
    """Pack entries of any kind: name, type, content, and name of what is linked to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content, link in items:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), link
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def flat(count: int, names: Iterable[str] = ()) -> bytes:
    """A header of tensors one behind the other, all of four bytes."""
    chosen = list(names) or [f"t{index}" for index in range(count)]
    header = {name: tensor([1], offsets=[4 * index, 4 * index + 4]) for index, name in enumerate(chosen)}
    return safetensors(header, bytes(4 * len(chosen)))
