"""Files as streams of bytes or text, plain or compressed, and what is said of one that cannot be read. Torch-free."""

from __future__ import annotations

import gzip
import io
import zlib
from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO, cast

from pruning_core.data.faults import not_utf8
from pruning_core.data.table import Table
from pruning_core.errors import DatasetInvalid
from pruning_core.machine.resources import raise_if_exhausted

# Characters of one row. Whole books are shorter; without a bound, a file without a line break would be read into memory whole.
LARGEST_ROW = 2**25
COMPRESSED = (".gz", ".zst")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class ReaderMissing(DatasetInvalid):
    """The file is in a form that only pyarrow reads, and pyarrow is not installed: nothing is said against the file."""


def reader_missing(path: Path) -> ReaderMissing:
    """Return the error for a file that needs pyarrow."""
    return ReaderMissing(
        f"{path.name} was not read, since pyarrow is not installed; install coppice-prune[prune], or give JSON Lines or CSV",
        param="task.dataset",
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What will be asked of a file.

    Attributes:
        names: Columns that will be read, as far as they are known.
        pictures: Those of them that hold bytes of images. Bytes in any other column are text.
        nested: Whether the inputs are lists of words.
    """

    names: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    nested: bool = False


class FileTable(Table):
    """One file of a split, as a table.

    Attributes:
        path: The file.
        may_lack: Whether a column that the file does not have is one whose values are missing: so it is in JSON.
    """

    path: Path
    may_lack = False

    @abstractmethod
    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Read rows; see `Table.rows`."""


def unreadable(path: Path, why: str) -> DatasetInvalid:
    """Return the error for a damaged file.

    Args:
        path: The file; its name alone is said.
        why: What is wrong with it, and what would be right.
    """
    return DatasetInvalid(f"{path.name} cannot be read: {why}", param="task.dataset")


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Turn errors of the system, of memory and of decompression into our own.

    Raises:
        DatasetInvalid: The file cannot be read, or its compression is damaged.
        OutOfMemory: Memory ran out.
    """
    try:
        yield
    except EOFError as error:
        raise unreadable(path, "it is truncated; its compressed content has no end. Copy or make it again") from error
    except (OSError, zlib.error, MemoryError) as error:
        raise_if_exhausted(error, f"{path.name} was read")
        if path.suffix in COMPRESSED and not (isinstance(error, OSError) and error.errno):
            what = "gzip" if path.suffix == ".gz" else "Zstandard"
            raise unreadable(path, f"it is corrupt or truncated, and no whole {what} file. Copy or make it again") from error
        raise unreadable(path, "the system does not let it be read, or it is no file") from error


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file, decompressed where its ending says that it is compressed.

    Raises:
        ReaderMissing: It is Zstandard, and pyarrow is not installed.
        OSError: As `open` does, and later.
    """
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        try:
            import pyarrow as pa
        except ImportError:
            raise reader_missing(path) from None
        return cast("IO[bytes]", io.BufferedReader(cast("Any", _Zstandard(pa.input_stream(str(path), compression="zstd")))))
    return path.open("rb")


class _Zstandard(io.RawIOBase):
    """Arrow's stream as a raw one, for Python's buffers to stand on."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def open_text(path: Path) -> Generator[TextIO]:
    """Open a file of text. Bytes that are not UTF-8 become surrogates, since they only matter in a column that is read.

    Raises:
        DatasetInvalid: The file is written in UTF-16, or cannot be read.
    """
    with reading(path), open_bytes(path) as stream:
        buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast("Any", stream))
        if buffered.peek(2)[:2] in _UTF_16:
            raise not_utf8(path.name, "task.dataset")
        with io.TextIOWrapper(buffered, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield text


def legible(text: str) -> str:
    """Replace what cannot be written in UTF-8 by question marks."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def check_text(value: object, column: str, table: str) -> None:
    """Check that all text in a value can be written in UTF-8.

    Args:
        value: A text, or anything that JSON can hold.
        column: Name of its column.
        table: Name of the table.

    Raises:
        DatasetInvalid: The file is in another encoding, or a text holds half of a pair of surrogates.
    """
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                if not text.isascii() and not _is_text(text):
                    raise _not_text(text, column, table)
            case list() as items:
                waiting += cast("list[object]", items)
            case dict() as fields:
                waiting += [*cast("dict[object, object]", fields), *cast("dict[object, object]", fields).values()]
            case _:
                pass


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _not_text(text: str, column: str, table: str) -> DatasetInvalid:
    if any("\udc80" <= character <= "\udcff" for character in text):
        return not_utf8(f"column {legible(column)!r} of {table}", "task.columns")
    return DatasetInvalid(
        f"column {legible(column)!r} of {table} holds half of a pair of surrogates (such as \\ud83d alone), which is no "
        "character; cut texts between characters",
        param="task.columns",
    )
