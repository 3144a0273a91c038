"""Every form in which people have data is read as the library that wrote it reads it, and damage is said in our words."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import random
from datetime import date
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pruning_core.data.formats.source import LARGEST_ROW, ReaderMissing
from pruning_core.data.opening import open_split
from pruning_core.errors import DatasetInvalid, OutOfMemory
from pruning_core.spec.prune import PruneSpec, TaskSpec

ROWS = [
    {"text": 'said "no", and\nleft; then | came\tback', "label": 1, "meta": "web"},
    {"text": "größer 😀", "label": 0, "meta": {"url": "u"}},
    {"text": "", "label": -1, "meta": [1, "a"]},
]
SIMPLE = [{"text": row["text"], "label": row["label"]} for row in ROWS]


def task(data: Path, **changes: object) -> TaskSpec:
    fields = {
        "type": "text-classification",
        "dataset": str(data),
        "columns": {"text": ["text"], "label": "label"},
        "metric": "accuracy",
    }
    return PruneSpec.model_validate({"model": "m", "task": fields | changes, "sparsity": 0.5}).task


def read(data: Path, role: str = "train", names=("text", "label"), **changes: object) -> list[tuple[object, ...]]:
    return list(open_split(task(data, **changes), role).rows(names))


def values(rows: list[dict[str, object]], names=("text", "label")) -> list[tuple[object, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a training split; a small validation split lies beside it, so that nothing is held out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / "validation.jsonl").write_text('{"text": "a", "label": 1}\n')
    return folder


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def separated(rows: list[dict[str, object]], separator: str = ",", columns=("text", "label")) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator)
    writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    return out.getvalue()


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "separator", "said"), [
    ("train.csv", ",", None),
    ("train.csv", ";", "semicolons"),
    ("train.csv", "\t", "tabs"),
    ("train.csv", "|", "vertical bars"),
    ("train.tsv", "\t", None),
    ("train.tsv", ",", "commas"),
])  # fmt: skip
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_cells_are_those_that_pandas_reads_whatever_separates_them(tmp_path, name, separator, said, start):
    data = put(tmp_path, name, start + separated(SIMPLE, separator))
    table = open_split(task(data), "train")
    frame = pd.read_csv(tmp_path / name, sep=separator, dtype=str, keep_default_na=False)
    assert list(table.rows(["text", "label"])) == list(frame.itertuples(index=False, name=None))
    assert table.columns == ("text", "label")
    assert not table.typed
    assert (said is None and not table.notes) or (said is not None and said in table.notes[0])


def test_a_separator_is_the_one_by_which_the_asked_columns_are_found(tmp_path):
    """A comma would split the header into as many cells, and the first row too."""
    data = put(tmp_path, "train.csv", "a,b;text;label\nx,y;one;1\n")
    assert read(data) == [("one", "1")]


def test_line_breaks_in_cells_of_a_large_file(tmp_path):
    r = random.Random(0)
    rows = [{"text": "\n".join(f"word{r.randrange(60)} word" for _ in range(10)), "label": i % 2} for i in range(20_000)]
    data = put(tmp_path, "train.csv", separated(rows))
    assert (tmp_path / "train.csv").stat().st_size > 2**21
    assert read(data) == [(row["text"], str(row["label"])) for row in rows]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_endings_of_every_system(tmp_path, ending):
    assert read(put(tmp_path, "train.csv", ending.join(["text,label", "a,1", "", "b,0", ""]))) == [("a", "1"), ("b", "0")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("text,label\na,1\nb,0,1\n", r"line 3 has 3 cells, and the header has 2"),
        ('text,label\n"a\nb",1\n\nc\n', r"line 5 has 1 cell, and the header has 2"),
        ('text,label\na,1\n"b,0\nc,1\n', r"quotation mark in the row of line 3 is never closed"),
        ("", "has no row"),
        ("text,label\n" + "a" * (2**24 + 1) + ",1\n", "line 2: a cell has more than 16777216 characters"),
    ],
)
def test_a_damaged_row_is_named_by_its_line(tmp_path, text, says):
    with pytest.raises(DatasetInvalid, match=says) as found:
        read(put(tmp_path, "train.csv", text))
    assert "train.csv" in found.value.message


def test_a_name_that_two_columns_have_is_refused_where_it_is_asked_for(tmp_path):
    data = put(tmp_path, "train.csv", "text,label,other,other\na,1,2,3\n")
    assert read(data) == [("a", "1")]
    with pytest.raises(DatasetInvalid, match="2 columns named 'other'"):
        read(data, names=["text", "other"])


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [
    lines,
    json.dumps,
    lambda rows: json.dumps(rows, indent=2),
    lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows),
    lambda rows: "".join(json.dumps(row) for row in rows),
    lambda rows: "\ufeff" + lines(rows),
    lambda rows: lines(rows).replace("\n", "\r\n"),
    lambda rows: json.dumps({"version": "1", "data": rows}),
])  # fmt: skip
def test_objects_are_read_in_every_shape_and_what_nobody_asked_for_does_not_matter(tmp_path, write):
    data = put(tmp_path, "train.json", write(ROWS))
    assert read(data) == values(ROWS)


@pytest.mark.parametrize("orient", ["records", "columns", "list"])
def test_what_pandas_writes_is_read_as_pandas_has_it(tmp_path, orient):
    frame = pd.DataFrame(SIMPLE)
    text = json.dumps(frame.to_dict(orient="list")) if orient == "list" else frame.to_json(orient=orient)
    table = open_split(task(put(tmp_path, "train.json", text)), "train")
    assert list(table.rows(["text", "label"])) == values(SIMPLE)
    assert bool(table.notes) == (orient != "records")


def test_one_row_of_words_is_a_row_and_no_columns(tmp_path):
    row = {"words": ["a", "b"], "tags": [0, 1]}
    changes = {"type": "token-classification", "columns": {"text": ["words"], "label": "tags"}}
    assert read(put(tmp_path, "train.json", json.dumps(row)), names=["words", "tags"], **changes) == [(["a", "b"], [0, 1])]


def test_a_key_that_first_appears_late_is_a_column(tmp_path):
    rows = [{"label": 1}] * 3000 + [{"text": "late", "label": 0}]
    assert read(put(tmp_path, "train.jsonl", lines(rows)))[-2:] == [(None, 1), ("late", 0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"text": "a", "label": 1}\n{"text": "b", "la', "line 2 is not as it should be .*one object a line"),
        ('{"text": "a", "label": 1}\n{"text": "b\n", "label": 1}\n', "line 2 is not"),
        ('{"text": "a", "label": 1}\nno\n', "line 2 .*'n' stands where an object should begin"),
        ("{'text': 'a'}", "line 1 is not"),
        ('["a", "b"]', "'\"' stands where an object"),
        ('[{"text": "a", "label": 1}, {"text": "b", "label": 1}', "the array has no end"),
        ('[{"text": "a", "label": 1}] {}', "something follows"),
        ("[]", "has no row"),
        ("\n \n", "has no row"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"text": "a \\ud83d", "label": 1}', "half of a pair of surrogates"),
        ("{" + " " * (LARGEST_ROW + 1) + "}", "more than 33554432 characters"),
    ],
)
def test_damaged_json_is_named_by_its_line(tmp_path, text, says):
    with pytest.raises(DatasetInvalid, match=says) as found:
        read(put(tmp_path, "train.json", text))
    assert "train.json" in found.value.message or "train split" in found.value.message


def test_odd_values_where_nobody_looks_are_no_fault(tmp_path):
    odd = '{"text": "a", "label": 1, "x": NaN, "y": -Infinity, "z": ' + "9" * 5000 + ', "u": "\\ud83d", "x": 1e999}\n'
    assert read(put(tmp_path, "train.jsonl", odd * 3)) == [("a", 1)] * 3


@pytest.mark.parametrize(
    ("name", "row"), [("train.jsonl", '{{"text": "{}", "label": 1}}\n'), ("train.csv", "text,label\n{},1\n")]
)
def test_a_row_of_megabytes(tmp_path, name, row):
    text = "word " * 2**20
    assert read(put(tmp_path, name, row.format(text)))[0][0] == text


# --- compressed -------------------------------------------------------------------------------------------------------


def compress(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(content)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "ndjson"])
def test_compressed_files_are_read_and_a_truncated_one_is_refused(tmp_path, packed, form):
    whole = compress((separated(SIMPLE, "\t" if form == "tsv" else ",") if "sv" in form else lines(SIMPLE)).encode(), packed)
    data = put(tmp_path, f"train.{form}{packed}", whole)
    assert [(text, int(label)) for text, label in read(data)] == values(SIMPLE)
    damaged = [whole[:-9] + b"\0" + whole[-8:]] if packed == ".gz" else []  # Zstandard as Arrow writes it has no checksum
    for broken in (whole[:-1], whole[: len(whole) // 2], b"not compressed", *damaged):
        put(tmp_path, f"train.{form}{packed}", broken)
        with pytest.raises(DatasetInvalid, match="truncated"):
            read(data)


# --- Parquet and Arrow ------------------------------------------------------------------------------------------------


def arrow_of(table: pa.Table, form: str) -> bytes:
    out = pa.BufferOutputStream()
    if form == "parquet":
        pq.write_table(table, out, row_group_size=2)
    else:
        new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with new(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return out.getvalue().to_pybytes()


ENDING = {"parquet": "train.parquet", "stream": "train.arrow", "file": "train.arrow"}


@pytest.mark.parametrize("form", ENDING)
def test_values_are_those_that_arrow_has(tmp_path, form):
    table = pa.table(
        {
            "text": pa.array(["a", "b", "a"]).dictionary_encode(),
            "large": pa.array(["x", None, "é"], pa.large_string()),
            "bytes": pa.array([b"text", "é".encode(), None]),
            "list": [["a", "b"], [], None],
            "answers": [{"text": ["a"], "answer_start": [1]}, None, {"text": [], "answer_start": []}],
            "day": pa.array([date(2020, 1, 1), None, date(1999, 12, 31)]),
            "label": [1, 0, -1],
            "a.b": [0.5, 1.5, None],
        }
    )
    names = table.column_names[::-1]
    expected = [
        tuple("text" if v == b"text" else "é" if v == "é".encode() else v for v in (row[n] for n in names))
        for row in table.to_pylist()
    ]
    opened = open_split(task(put(tmp_path, ENDING[form], arrow_of(table, form))), "train")
    assert opened.columns == tuple(table.column_names)
    assert list(opened.rows(names)) == expected


@pytest.mark.parametrize("form", ENDING)
def test_damaged_arrow_files_are_refused_in_our_words(tmp_path, form):
    whole = arrow_of(pa.Table.from_pylist(SIMPLE), form)
    for broken in (b"", b"PAR1", whole[:40], whole[: len(whole) // 2], whole[:-8], whole[8:], b"{}" * 50):
        with pytest.raises(DatasetInvalid, match="corrupt or truncated: it is not a valid"):
            read(put(tmp_path, ENDING[form], broken))


def test_text_that_is_not_utf8_is_said_where_it_is_read(tmp_path):
    table = pa.table({"text": pa.array([b"sch\xf6n"]), "label": [1], "idx": [1]})
    data = put(tmp_path, "train.parquet", arrow_of(table, "parquet"))
    assert read(data, names=["label"]) == [(1,)]
    with pytest.raises(DatasetInvalid, match="column 'text' of the train split is not written in UTF-8"):
        read(data)


def test_utf_16_is_said(tmp_path):
    for text in (separated(SIMPLE).encode("utf-16"), separated(SIMPLE).encode("utf-16-le")):
        with pytest.raises(DatasetInvalid, match="not written in UTF-8"):
            read(put(tmp_path, "train.csv", text))


@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_names_of_classes_are_those_of_the_hub_s_library(tmp_path, form):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
        }
    )
    made = datasets.Dataset.from_list([{"text": "a", "label": 1, "tags": [0, 1]}] * 3, features=features)
    if form == "parquet":
        tmp_path.joinpath("data").mkdir()
        for split in ("train", "validation"):
            made.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    else:
        datasets.DatasetDict({"train": made, "validation": made}).save_to_disk(tmp_path)
    table = open_split(task(tmp_path), "train")
    assert table.classes == {"label": ("neg", "pos"), "tags": ("O", "B-X")}
    assert list(table.rows(["text", "label", "tags"])) == [("a", 1, [0, 1])] * 3


def test_without_pyarrow_the_columns_are_known_and_the_rows_are_not(tmp_path, monkeypatch):
    data = put(tmp_path, "train.parquet", arrow_of(pa.Table.from_pylist(SIMPLE), "parquet"))
    monkeypatch.setattr("pruning_core.data.formats.arrow.find_spec", lambda name: None)
    table = open_split(task(data), "train")
    assert table.columns == ("text", "label")
    with pytest.raises(ReaderMissing, match=r"pyarrow is not installed; install coppice-prune\[prune\]"):
        list(table.rows(["text"]))
    put(tmp_path / "other", "train.arrow", arrow_of(pa.Table.from_pylist(SIMPLE), "stream"))
    with pytest.raises(ReaderMissing):
        open_split(task(tmp_path / "other"), "train")


# --- any damage -------------------------------------------------------------------------------------------------------

WHOLE = {
    "train.csv": separated(SIMPLE).encode(),
    "train.jsonl": lines(ROWS).encode(),
    "train.json": json.dumps({"data": ROWS}).encode(),
    "train.json.gz": gzip.compress(json.dumps(ROWS).encode(), mtime=0),
    "train.jsonl.zst": compress(lines(ROWS).encode(), ".zst"),
    "train.parquet": arrow_of(pa.Table.from_pylist(SIMPLE), "parquet"),
    "stream train.arrow": arrow_of(pa.Table.from_pylist(SIMPLE), "stream"),
    "file train.arrow": arrow_of(pa.Table.from_pylist(SIMPLE), "file"),
}


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.sampled_from(["put", "cut", "add"]), st.integers(0, 255)), max_size=6)
)
def test_any_damage_ends_in_rows_or_in_a_sentence(tmp_path, name, edits):
    content = bytearray(WHOLE[name])
    for place, kind, byte in edits:
        at = place % (len(content) + 1)
        if kind == "cut":
            del content[at : at + byte]
        else:
            content[at : at + (kind == "put")] = bytes([byte])
    with contextlib.suppress(DatasetInvalid, OutOfMemory):
        assert all(len(row) == 2 for row in read(put(tmp_path, name.split()[-1], bytes(content))))
