"""Slices of the validation rows by columns that the user names: by hand, on odd columns, and read from files."""

import csv
import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from pruning_core.checks.request import check_local_inputs
from pruning_core.data.read import read_rows
from pruning_core.data.rows import Rows
from pruning_core.errors import DatasetInvalid
from pruning_core.measure.slices import MOST_VALUES, by_columns, groups_of
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import Judged
from pruning_core.tasks.scoring import Scores
from tests import tiny
from tests.compared import classes_of, spec_of

ACCURACY = spec_of("text-classification", "accuracy")


def named(values):
    return {name: places.tolist() for name, places in groups_of(values)}


def test_values_are_groups_and_missing_ones_are_one_of_their_own():
    assert named(["a", "b", None, "a"]) == {"a": [0, 3], "b": [1], "no value": [2]}
    assert named([None, None]) == {"no value": [0, 1]}
    assert named([1.0, 2.0, 1.0]) == {"1": [0, 2], "2": [1]}


def test_many_values_are_the_most_frequent_and_others():
    values = [f"v{place:02}" for place in range(60)] * 2 + ["v59"] * 5
    found = groups_of(values)
    assert len(found) == MOST_VALUES
    assert found[0][0] == "v59", "it has the most rows"
    assert (found[-1][0], len(found[-1][1])) == ("others (11 values)", 22)
    assert sorted(place for _, places in found for place in places.tolist()) == list(range(len(values)))


def test_numbers_of_many_values_are_quarters_also_as_texts():
    numbers = [float(place) for place in range(1, 41)]
    assert [(name, len(places)) for name, places in groups_of(numbers)] == [
        ("1 to 10", 10),
        ("11 to 20", 10),
        ("21 to 30", 10),
        ("31 to 40", 10),
    ]
    assert named([str(number) for number in numbers]) == named(numbers)
    assert "no value" in named([*numbers, None])
    assert len(named([0.0] * 100 + numbers)["0"]) == 100, "rows of one value stay together"


def rows_of(**slices):
    count = len(next(iter(slices.values())))
    return Rows(tuple((f"text {row}",) for row in range(count)), None, ("no", "yes"), slices=slices)


def test_the_worst_slice_is_first_and_one_row_says_that_it_has_no_interval():
    wanted = [1] * 31
    pruned = [1] * 10 + [0] * 8 + [1] * 12 + [0]
    values = ("good",) * 10 + ("bad",) * 20 + ("one",)
    found = by_columns(ACCURACY, Judged(*classes_of(wanted, wanted, pruned), 31, {}), rows_of(source=values))
    assert [(own.name, own.rows) for own in found] == [("bad", 20), ("good", 10), ("one", 1)]
    assert {own.column for own in found} == {"source"}
    worst, _, one = found
    assert worst.high is not None
    assert worst.high < 0
    assert (one.dense, one.pruned, one.low) == (1, 0, None), "a share of one row is a share, and no interval"
    assert one.no_interval == "1 row is too few, an interval needs 10"


def test_a_slice_without_a_metric_says_why():
    truth = torch.arange(12.0)
    judged = Judged(Scores(truth, truth), Scores(truth, truth), 12, {})
    found = by_columns(spec_of("regression", "spearman"), judged, rows_of(of=("a",) * 11 + ("b",)))
    assert (found[1].rows, found[1].dense, found[1].pruned) == (1, None, None)
    assert "undefined on these rows" in found[1].no_interval


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_are_brought_along_with_the_rows_that_stay(tmp_path: Path, suffix: str):
    rows = [
        {"text": "a", "y": 1, "source": "web", "age": 3},
        {"text": "", "y": 0, "source": "mail", "age": 4},
        {"text": "c", "y": 0, "source": None, "age": 5},
    ]
    path = tmp_path / f"validation.{suffix}"
    if suffix == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    task = spec_of("text-classification", "accuracy").task.but(dataset=str(tmp_path), columns={"text": ["text"], "label": "y"})
    found = read_rows(task, "validation", ("source", "age", "text", "y"))
    assert found.slices["source"] == ("web", None)
    assert [float(age) for age in found.slices["age"]] == [3, 5]
    assert found.slices["text"] == ("a", "c"), "a column may be both"
    assert [float(label) for label in found.slices["y"]] == [1, 0]
    assert found.take([1]).slices["source"] == (None,)
    assert read_rows(task, "validation").slices == {}


def test_a_column_that_is_missing_is_refused_by_check(tiny_bert: Path, tiny_sst2: Path):
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2, evaluation={"slices": ["sentense"]})
    with pytest.raises(
        DatasetInvalid, match=r"no column 'sentense' to slice by; it has .*label, sentence.*did you mean sentence"
    ) as caught:
        check_local_inputs(spec)
    assert caught.value.param == "evaluation.slices"
    check_local_inputs(tiny.tiny_spec(tiny_bert, tiny_sst2, evaluation={"slices": ["label"]}))


@pytest.mark.parametrize(
    ("kind", "metric", "slices", "said"),
    [
        ("text-generation", "perplexity", ["source"], "not judged row by row"),
        ("text-classification", "accuracy", ["a", "a"], "each column once"),
        ("text-classification", "accuracy", [str(place) for place in range(9)], "at most 8"),
    ],
)
def test_slices_that_say_nothing_are_refused(kind, metric, slices, said):
    with pytest.raises(ValidationError, match=said):
        spec_of(kind, metric, evaluation={"slices": slices})


def test_a_spec_without_them_is_written_as_before():
    assert PruneSpec(model="m", task="glue/sst2", sparsity=0.5).model_dump()["evaluation"] == {
        "max_samples": None,
        "max_length": 128,
    }
