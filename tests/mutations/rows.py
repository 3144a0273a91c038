"""Mutations of data sets: rows, columns, splits, and the form of the files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def _read(path: Path) -> Rows:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: Rows) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            pq.write_table(pa.Table.from_pylist(rows), path)
        except (pa.ArrowException, OverflowError):
            return  # what Parquet can't hold, nobody has in it
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def splits_of(data: Path, index: int) -> list[Path]:
    """Choose the file of a split, or those of both."""
    found = sorted(path for path in data.iterdir() if path.suffix in (".jsonl", ".parquet"))
    return found if index % 3 == 2 else found[index % 3 : index % 3 + 1]


def mutate_rows(data: Path, operation: str, index: int, value: Any) -> None:
    """Read the rows of a split, or of both, mutate them and write them back."""
    for path in splits_of(data, index):
        rows = _read(path)
        if rows and rows[0]:  # the last column may be gone already
            _write(path, OPERATIONS[operation](rows, index // 3, value))


def _column(rows: Rows, index: int) -> str:
    return sorted(rows[0])[index % len(rows[0])]


def _drop_column(rows: Rows, index: int, _value: Any) -> Rows:
    name = _column(rows, index)
    return [{key: one for key, one in row.items() if key != name} for row in rows]


def _rename_column(rows: Rows, index: int, _value: Any) -> Rows:
    name = _column(rows, index)
    other = (name.upper(), f" {name}", f"{name}s", "sentence", "content", "labels", "target")[index % 7]
    return [{other if key == name else key: one for key, one in row.items()} for row in rows]


def _set_cell(rows: Rows, index: int, value: Any) -> Rows:
    rows[(index * 13) % len(rows)][_column(rows, index)] = value
    return rows


def _set_last(rows: Rows, index: int, value: Any) -> Rows:
    rows[-1][_column(rows, index)] = value
    return rows


def _set_column(rows: Rows, index: int, value: Any) -> Rows:
    name = _column(rows, index)
    return [row | {name: value} for row in rows]


def _as_text(rows: Rows, index: int, _value: Any) -> Rows:
    name = _column(rows, index)
    return [row | {name: row[name] if isinstance(row[name], str) else json.dumps(row[name], default=str)} for row in rows]


def _as_float(rows: Rows, index: int, _value: Any) -> Rows:
    return [{key: float(one) if isinstance(one, int) else one for key, one in row.items()} for row in rows]


def _in_lists(rows: Rows, index: int, _value: Any) -> Rows:
    name = _column(rows, index)
    return [row | {name: [row[name]]} for row in rows]


def _classes(rows: Rows, index: int, _value: Any) -> Rows:
    """Give labels other words for the same: names, digits, truths, one-hot lists."""
    name = next((key for key in ("label", "labels", "tags", "score") if key in rows[0]), None)
    if name is None:
        return rows
    forms: tuple[Callable[[Any], Any], ...] = (
        lambda one: ("LABEL_0", "LABEL_1")[one] if one in (0, 1) else one,
        lambda one: ("neg", "pos")[one] if one in (0, 1) else str(one),
        str,
        lambda one: bool(one) if isinstance(one, int) else one,
        lambda one: [float(one == 0), float(one == 1)],
        lambda one: one + 1 if isinstance(one, int | float) else one,
        lambda one: -1,
        lambda one: [1, 0, 1],
        lambda one: [[0]],
        lambda one: math.nan,
    )
    form = forms[index % len(forms)]
    return [row | {name: form(row[name])} for row in rows]


def _few(rows: Rows, index: int, _value: Any) -> Rows:
    return rows[: (0, 1, 2, 3, 5)[index % 5]]


def _alike(rows: Rows, _index: int, _value: Any) -> Rows:
    return [dict(rows[0]) for _ in rows]


def _long_text(rows: Rows, index: int, _value: Any) -> Rows:
    row = rows[index % len(rows)]
    for name, one in row.items():
        if isinstance(one, str):
            row[name] = (one + " ") * (300_000 // (len(one) + 1))
    return rows


def _texts(rows: Rows, index: int, _value: Any) -> Rows:
    odd = (
        "",
        " ",
        "\n",
        "zzz qqq",
        "\u202e\u200b",
        "word1\x00word2",
        "word1\nword2\r\n",
        '"word1',
        "\U0001f600",
        "1",
        "None",
        "nan",
    )
    text = odd[index % len(odd)]
    chosen = rows if index % 2 else rows[:3]
    for row in chosen:
        for name, one in row.items():
            if isinstance(one, str):
                row[name] = text
    return rows


def _unasked(rows: Rows, index: int, value: Any) -> Rows:
    """Add a column that no one asked for, of several types."""
    others = (value, {"url": "u"}, ["a"], 1, "web")
    return [row | {"meta": others[(number * (1 + index % 3)) % len(others)]} for number, row in enumerate(rows)]


def _dates(rows: Rows, index: int, _value: Any) -> Rows:
    name = _column(rows, index)
    return [row | {name: f"2024-01-{1 + number % 28:02}"} for number, row in enumerate(rows)]


def _ragged(rows: Rows, index: int, _value: Any) -> Rows:
    """Leave columns out of some rows."""
    name = _column(rows, index)
    return [{key: one for key, one in row.items() if key != name or number % 4} for number, row in enumerate(rows)]


OPERATIONS: Mapping[str, Callable[[Rows, int, Any], Rows]] = {
    "drop-column": _drop_column,
    "rename-column": _rename_column,
    "set-cell": _set_cell,
    "set-last": _set_last,
    "set-column": _set_column,
    "as-text": _as_text,
    "as-float": _as_float,
    "in-lists": _in_lists,
    "classes": _classes,
    "few": _few,
    "alike": _alike,
    "long-text": _long_text,
    "texts": _texts,
    "unasked": _unasked,
    "dates": _dates,
    "ragged": _ragged,
}


def _separated(separator: str, **options: Any) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        text = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in rows for name in row))
        out = csv.DictWriter(text, names, delimiter=separator, **options)
        out.writeheader()
        out.writerows(rows)
        return text.getvalue().encode("utf-8", "replace")

    return write


def _lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(rows: Rows) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def _arrow(rows: Rows) -> bytes:
    import pyarrow as pa

    out = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


# Endings of files, and what writes them.
FORMS: Mapping[str, Callable[[Rows], bytes]] = {
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    "-semicolons.csv": _separated(";"),
    "-quoted.csv": _separated(",", quoting=csv.QUOTE_ALL, lineterminator="\n"),
    ".txt": lambda rows: "\n".join(str(next(iter(row.values()))) for row in rows).encode(),
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": lambda rows: json.dumps(rows).encode(),
    "-columns.json": lambda rows: json.dumps({name: [row.get(name) for row in rows] for name in rows[0]}).encode(),
    "-data.json": lambda rows: json.dumps({"version": "1", "data": rows}).encode(),
    ".jsonl.gz": lambda rows: gzip.compress(_lines(rows)),
    ".csv.gz": lambda rows: gzip.compress(_separated(",")(rows)),
    ".json.gz": _lines,
    ".parquet": _parquet,
    "-00000-of-00001.parquet": _parquet,
    ".arrow": _arrow,
}


def write_as(data: Path, form: str) -> None:
    """Write every split in another form."""
    import pyarrow as pa

    for path in [path for path in data.iterdir() if path.suffix in (".jsonl", ".parquet")]:
        rows = _read(path)
        if not rows or not rows[0]:
            continue
        stem = path.name.removesuffix(path.suffix)
        ending = form if form in ("-00000-of-00001.parquet",) else f".{form.split('.', 1)[1]}"
        try:
            content = FORMS[form](rows)
        except (pa.ArrowException, OverflowError, TypeError):
            return
        path.unlink()
        (data / f"{stem}{ending}").write_bytes(content)


_NAMES = ("valid", "dev", "val", "test", "eval", "Validation", "validation_matched", "train2", "training")


def rename_split(data: Path, index: int) -> None:
    """Give a split another name, or leave it out."""
    found = sorted(path for path in data.iterdir() if path.is_file())
    if not found:
        return
    path = found[index % len(found)]
    if index % 11 == 0:
        path.unlink()
    elif not (other := path.with_name(path.name.replace(path.name.split(".")[0], _NAMES[index % len(_NAMES)]))).exists():
        path.rename(other)
