"""What is told of a data file without reading it: the same as its reader says, and never more than that."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pruning_core.checks.request import check_local_inputs
from pruning_core.data.labels import with_classes
from pruning_core.data.read import read_rows
from pruning_core.errors import DatasetInvalid
from pruning_core.files.columns import Column, read_columns
from pruning_core.files.parquet_footer import FooterTooLarge, read_footer
from pruning_core.spec.prune import PruneSpec
from tests import tiny


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


ROWS: list[dict[str, object]] = [
    {"sentence": "a, b", "label": 1, "score": -0.5},
    {"sentence": 'said "no"\nand left', "label": -1, "score": None},
    {"sentence": "é", "label": 0, "score": 2.5},
]


def test_columns_are_those_of_the_file(tmp_path: Path) -> None:
    columns = read_columns(write(tmp_path / "train.parquet", ROWS))
    assert columns is not None
    assert list(columns) == ["sentence", "label", "score"]
    assert columns["sentence"] == Column("text")
    assert (columns["label"].smallest, columns["label"].largest) == (-1, 1)
    assert (columns["score"].smallest, columns["score"].largest) == (-0.5, 2.5)
    assert columns["label"].kind == "number"


def test_a_footer_says_what_arrow_says(tmp_path: Path) -> None:
    table = pa.table(
        {
            "nested": [{"a": 1, "b": {"c": "x"}}, {"a": 2, "b": {"c": "y"}}, None],
            "list": [[1, 2], [], None],
            "text": ["a", "b", None],
            "big": pa.array(["a", "b", "c"], pa.large_string()),
            "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
            "bytes": [b"a", b"b", b"c"],
            "small": pa.array([3, -7, None], pa.int8()),
            "real": pa.array([1.5, 2.5, 0.5], pa.float32()),
            "flag": [True, False, True],
            "day": pa.array([1, 2, 3], pa.date32()),
            "none": pa.nulls(3),
        }
        | {f"column{i}": [i, i, i] for i in range(20)}
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    footer = read_footer(tmp_path / "t.parquet")
    found = {column.name: column for column in footer.columns}
    assert footer.rows == 3
    assert list(found) == table.column_names
    assert {name for name in found if found[name].is_text} == {"text", "big", "dictionary"}
    numbers = {name for name in found if found[name].is_number}
    assert {"small", "real", "flag", "column0"} <= numbers
    assert numbers.isdisjoint({"day", "bytes", "nested", "list"})
    assert (found["real"].smallest, found["real"].largest) == (0.5, 2.5)
    assert found["small"].smallest is None, "one row group has no value, so it says nothing of bounds"
    assert (found["column19"].smallest, found["column19"].largest) == (19, 19)
    pq.write_table(table, tmp_path / "bare.parquet", write_statistics=False)
    assert all(column.smallest is None for column in read_footer(tmp_path / "bare.parquet").columns)


def test_a_damaged_footer_is_an_error_of_the_one_kind(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", ROWS).read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    rng, path, refused = random.Random(0), tmp_path / "damaged.parquet", 0
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[len(whole) - 8 - rng.randint(-4, length)] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_footer(path)
        except ValueError:
            refused += 1
        except FooterTooLarge:
            pass
    assert refused > 1000
    for cut in (whole[:-1], whole[: len(whole) // 2], b"", b"PAR1", b"PAR1" * 3, whole[-8:]):
        path.write_bytes(cut)
        with pytest.raises(DatasetInvalid, match="corrupt or truncated"):
            read_columns(path)


def test_what_costs_too_much_to_look_at_is_left_to_the_job(tmp_path: Path) -> None:
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.table({"x" * 1000 + str(i): [1] for i in range(1100)}), path, write_statistics=False)
    assert read_columns(path) is None


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "t.parquet")
    with pytest.raises(DatasetInvalid, match="has no row"):
        read_columns(tmp_path / "t.parquet")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize(
    ("change", "columns", "says"),
    [
        ({}, {"text": ["sentence"], "label": "lable"}, "has no column 'lable'; it has label, sentence"),
        ({}, {"text": ["text"], "label": "label"}, "has no column 'text'"),
        ({"label": 2}, {"text": ["sentence"], "label": "label"}, "label 2 is no class of the model, which has 2"),
        ({"label": -2}, {"text": ["sentence"], "label": "label"}, "label -2 is no class"),
        ({"label": 0.5}, {"text": ["sentence"], "label": "label"}, r"label 0\.5 is no class"),
        ({"label": "good"}, {"text": ["sentence"], "label": "label"}, "label 'good' is no class of the model, which has"),
    ],
)
def test_what_the_job_would_refuse_is_refused_before_it_in_the_same_words(
    tiny_bert: Path, tmp_path: Path, suffix: str, change: dict[str, object], columns: dict[str, object], says: str
) -> None:
    rows = [{"sentence": "word1 word2", "label": 0}, {"sentence": "word3 word4", "label": 1} | change]
    if "label" in change:
        rows = [row | {"label": type(change["label"])(row["label"])} for row in rows]  # a column has one type
    for split in ("train", "validation"):
        write(tmp_path / "data" / f"{split}.{suffix}", rows)
    task = {"type": "text-classification", "dataset": str(tmp_path / "data"), "columns": columns, "metric": "accuracy"}
    spec = PruneSpec.model_validate({"model": str(tiny_bert), "task": task, "sparsity": 0.5})
    with pytest.raises(DatasetInvalid, match=says) as early:
        check_local_inputs(spec)
    with pytest.raises(DatasetInvalid, match=says) as late:
        with_classes(spec.task, read_rows(spec.task, "train"), ("no", "yes"))
    assert early.value.param == late.value.param


def test_a_head_that_does_not_fit_the_task_is_refused_before_the_job(tmp_path: Path, tiny_sst2: Path, tiny_bert: Path) -> None:
    task = {"type": "regression", "dataset": str(tiny_sst2), "columns": {"text": ["sentence"], "label": "idx"}}
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2, task=task | {"metric": "spearman"})
    with pytest.raises(DatasetInvalid, match="one output, this one has 2"):
        check_local_inputs(spec)
    one = tiny.write_model(tmp_path / "one", "bert", num_labels=1)
    check_local_inputs(spec.model_copy(update={"model": str(one)}))
    with pytest.raises(DatasetInvalid, match="two outputs or more"):
        check_local_inputs(tiny.tiny_spec(one, tiny_sst2))
    three = tiny.write_model(tmp_path / "three", "bert", num_labels=3)
    check_local_inputs(tiny.tiny_spec(three, tiny_sst2))


def test_numbers_where_text_belongs_are_refused(tiny_bert: Path, tiny_sst2: Path) -> None:
    task = {"type": "feature-extraction", "dataset": str(tiny_sst2), "columns": {"text": ["idx"]}, "metric": "cosine"}
    with pytest.raises(DatasetInvalid, match="'idx' of the train split holds numbers"):
        check_local_inputs(tiny.tiny_spec(tiny_bert, tiny_sst2, task=task))
