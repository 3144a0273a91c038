"""Parquet and Arrow files, by pyarrow, which is imported when a file is opened. Torch-free.

Nothing here starts a thread: what looks at a stranger's file may not.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pruning_core.data.faults import not_utf8
from pruning_core.data.features import classes_in
from pruning_core.data.formats.source import Asked, FileTable, legible, reader_missing, unreadable
from pruning_core.errors import DatasetInvalid
from pruning_core.files.parquet_footer import FooterTooLarge, read_footer
from pruning_core.machine.resources import raise_if_exhausted

_MOST_ROWS = 1024
_BATCH_BYTES = 2**24  # of values, as the footer tells them
_BUFFER_BYTES = 2**20
_MAGIC = b"ARROW1"
_ENDS = (b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0")  # of streams, now and before Arrow 0.15


def open_parquet(path: Path, name: str, asked: Asked) -> FileTable:
    """Open a Parquet file. Without pyarrow its columns are known and its rows are not."""
    return _Parquet(path, name, asked) if find_spec("pyarrow") else _Footer(path, name)


def open_arrow(path: Path, name: str, asked: Asked) -> FileTable:
    """Open a file in Arrow's format of files or of streams.

    Raises:
        ReaderMissing: pyarrow is not installed.
    """
    if not find_spec("pyarrow"):
        raise reader_missing(path)
    return _Ipc(path, name, asked)


class _Footer(FileTable):
    """A Parquet file of which only the footer can be read."""

    typed = True
    notes = ()

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.classes = {}
        try:
            self.columns = tuple(column.name for column in read_footer(path).columns)
        except FooterTooLarge:
            raise reader_missing(path) from None
        except (OSError, ValueError):
            raise _damaged(path, "Parquet") from None

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:  # noqa: ARG002 - a table's
        """Refuse to read rows."""
        raise reader_missing(self.path)


class ArrowTable(FileTable):
    """What Arrow reads in batches."""

    typed = True
    notes = ()
    kind = "Arrow"

    def _describe(self, schema: Any) -> None:
        names: list[str] = schema.names
        self.columns = tuple(map(legible, names))
        self.classes: Mapping[str, tuple[str, ...]] = classes_in((schema.metadata or {}).get(b"huggingface", b""))

    @abstractmethod
    def _batches(self, places: Sequence[int]) -> Iterator[Any]:
        """Yield batches with these columns, in this order."""

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Read rows."""
        places = [self.columns.index(name) for name in names]
        with _reading(self.path, self.kind):
            for batch in self._batches(places):
                columns = [self._values(name, batch.column(i)) for i, name in enumerate(names)]
                yield from zip(*columns, strict=True) if columns else [()] * batch.num_rows

    def _values(self, name: str, column: Any) -> list[Any]:
        """Return the values of a column. Bytes are text, unless they are a picture's: not every writer says so."""
        self._check(name, column)
        try:
            values: list[Any] = column.to_pylist()
            if name not in self._asked.pictures and any(isinstance(value, bytes) for value in values):
                return [value.decode("utf-8") if isinstance(value, bytes) else value for value in values]
        except UnicodeDecodeError:
            raise not_utf8(f"column {name!r} of {self.name}", "task.columns") from None
        except (ValueError, OverflowError, ImportError) as error:
            import pyarrow as pa

            if isinstance(error, pa.ArrowException):
                raise
            raise DatasetInvalid(
                f"column {name!r} of {self.name} holds {column.type} values that Python has no type for, such as dates before "
                "the year 1; write them as text",
                param="task.columns",
            ) from error
        return values

    def _check(self, name: str, column: Any) -> None:
        """Insist that offsets lie in their buffers: Arrow believes a file, and a damaged one would end the process."""
        import pyarrow as pa

        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error):
                raise not_utf8(f"column {name!r} of {self.name}", "task.columns") from None
            raise

    _asked: Asked


class _Parquet(ArrowTable):
    """A Parquet file."""

    kind = "Parquet"

    def __init__(self, path: Path, name: str, asked: Asked) -> None:
        self.path = path
        self.name = name
        self._asked = asked
        with _reading(path, self.kind), self._open() as file:
            self._describe(file.schema_arrow)

    def _open(self) -> Any:
        import pyarrow.parquet as pq

        # Without the buffer, the whole of a column in a row group would be in memory; read ahead, on other threads.
        return pq.ParquetFile(str(self.path), buffer_size=_BUFFER_BYTES, pre_buffer=False, memory_map=False)

    def _batches(self, places: Sequence[int]) -> Iterator[Any]:
        names = [self.columns[place] for place in places]
        with self._open() as file:
            size = _batch_rows(file.metadata)
            for batch in file.iter_batches(batch_size=size, columns=names, use_threads=False):
                yield batch.select(names)


def _batch_rows(metadata: Any) -> int:
    """Return how many rows to take at a time, by the largest rows that the footer tells of."""
    largest = 1.0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        largest = max(largest, group.total_byte_size / max(group.num_rows, 1))
    return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / largest)))


class _Ipc(ArrowTable):
    """A file in one of Arrow's own formats. A batch is in memory whole, as it was written."""

    def __init__(self, path: Path, name: str, asked: Asked) -> None:
        self.path = path
        self.name = name
        self._asked = asked
        with _reading(path, self.kind), self._source() as source, self._reader(source, None) as reader:
            self._describe(reader.schema)

    def _source(self) -> Any:
        import pyarrow as pa

        return pa.OSFile(str(self.path))

    def _is_file(self) -> bool:
        with self.path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC

    def _reader(self, source: Any, places: Sequence[int] | None) -> Any:
        from pyarrow import ipc

        options = ipc.IpcReadOptions(use_threads=False, included_fields=None if places is None else sorted(set(places)))
        return ipc.open_file(source, options=options) if self._is_file() else ipc.open_stream(source, options=options)

    def _batches(self, places: Sequence[int]) -> Iterator[Any]:
        wanted = [self.columns[place] for place in places]
        is_file = self._is_file()
        if not is_file:
            self._check_end()
        with self._source() as source, self._reader(source, places) as reader:
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
            for whole in batches:
                batch = whole.select(wanted)
                for start in range(0, batch.num_rows, _MOST_ROWS):
                    yield batch.slice(start, _MOST_ROWS)

    def _check_end(self) -> None:
        """Insist on the mark at a stream's end. Without it the stream is cut between two batches, which Arrow does not say."""
        with self.path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(-min(file.tell(), len(_ENDS[0])), os.SEEK_END)
            if not file.read().endswith(_ENDS):
                raise _damaged(self.path, self.kind)


def _damaged(path: Path, kind: str) -> DatasetInvalid:
    return unreadable(path, f"it is corrupt or truncated: it is not a valid {kind} file. Copy or make it again")


@contextmanager
def _reading(path: Path, kind: str) -> Generator[None]:
    """Turn Arrow's errors into ours.

    Raises:
        DatasetInvalid: The file is damaged, or holds what pyarrow does not read.
        OutOfMemory: Memory ran out.
    """
    import pyarrow as pa

    try:
        yield
    except pa.ArrowNotImplementedError as error:
        raise unreadable(path, "it is written in a way that pyarrow does not read; write it again with pandas") from error
    except (pa.ArrowException, OSError, MemoryError, ValueError, KeyError, IndexError) as error:
        raise_if_exhausted(error, f"{path.name} was read")
        raise _damaged(path, kind) from error
