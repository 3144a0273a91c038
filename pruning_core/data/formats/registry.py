"""The forms of data files by their endings, and the opening of one file. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pruning_core.data.formats.arrow import open_arrow, open_parquet
from pruning_core.data.formats.delimited import Delimited
from pruning_core.data.formats.json_rows import JsonRows
from pruning_core.data.formats.source import Asked, FileTable
from pruning_core.files.paths import data_suffix

_OPEN: Mapping[str, Callable[[Path, str, Asked], FileTable]] = {
    ".parquet": open_parquet,
    ".jsonl": JsonRows,
    ".ndjson": JsonRows,
    ".json": JsonRows,
    ".csv": Delimited,
    ".tsv": Delimited,
    ".arrow": open_arrow,
    ".feather": open_arrow,
}


def open_file(path: Path, name: str, asked: Asked) -> FileTable:
    """Open a data file by its ending.

    Args:
        path: A file whose ending is one of `pruning_core.files.paths.DATA_SUFFIXES`.
        name: Name of its split, for messages.
        asked: What will be read.

    Raises:
        DatasetInvalid: The file is damaged, empty or of another form than its ending says.
        ReaderMissing: It needs pyarrow, which is not installed.
    """
    suffix = data_suffix(path.name)
    assert suffix is not None, "only data files are opened"
    return _OPEN[suffix.removesuffix(".gz").removesuffix(".zst")](path, name, asked)
