"""What a label means: names, indices, digits, zeros and ones; decided once, by all values of a column."""

from __future__ import annotations

import json

import pytest

from pruning_core.checks.request import check_local_inputs
from pruning_core.data.labels import placed
from pruning_core.data.read import read_rows
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.run.pipeline import run
from tests import tasks, tiny

NAMES = ("negative", "positive")
STARS = ("1", "2", "3", "4", "5")


def spec_of(folder, task_type="text-classification", model=None, columns=None, metric=None, **changes):
    task = {
        "type": task_type,
        "dataset": str(folder),
        "columns": {"text": ["text"], "label": "label"} if columns is None else columns,
        "metric": metric or {"multi-label-classification": "f1", "regression": "spearman"}.get(task_type, "accuracy"),
    }
    return tiny.tiny_spec(model or folder / "no model", folder, task=task, **changes)


def write(folder, labels, *, others=None, suffix="jsonl", text=None):
    """Write the labels of both splits; every other text is another one."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, own in (("train", labels), ("validation", labels if others is None else others)):
        rows = [{"text": f"word{at % 50} good" if text is None else text, "label": label} for at, label in enumerate(own)]
        if suffix == "csv":
            lines = ["text,label", *(f'"{row["text"]}","{str(row["label"]).replace(chr(34), chr(34) * 2)}"' for row in rows)]
        else:
            lines = [json.dumps(row) for row in rows]
        (folder / f"{split}.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def meant(folder, names, task_type="text-classification"):
    """Return the labels of both splits, and what was said of them."""
    task = spec_of(folder, task_type).task
    train, validation = placed(task, [read_rows(task, role) for role in ("train", "validation")], names)
    return train.labels, validation.labels, train.notes


def model_with(folder, names, **config):
    model = tiny.write_model(folder, "bert", num_labels=len(names))
    path = model / "config.json"
    changed = json.loads(path.read_text()) | {
        "id2label": {str(place): name for place, name in enumerate(names)},
        "label2id": {name: place for place, name in enumerate(names)},
        **config,
    }
    path.write_text(json.dumps(changed))
    return model


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("labels", "names", "wanted"),
    [
        (["negative", "positive"], NAMES, (0, 1)),
        (["Positive", "NEGATIVE"], NAMES, (1, 0)),
        (["1", "0"], NAMES, (1, 0)),
        (["1.0", "0.0"], NAMES, (1, 0)),
        ([1, 0], NAMES, (1, 0)),
        ([1.0, 0.0], NAMES, (1, 0)),
        ([True, False], NAMES, (1, 0)),
        ([True, False], ("True", "False"), (0, 1)),
        (["very bad", "so so"], ("so_so", "VERY-BAD"), (1, 0)),
        (["5", "1"], STARS, (4, 0)),
        (["4", "0"], STARS, (4, 0)),
        (["LABEL_1", "LABEL_0"], ("LABEL_0", "LABEL_1"), (1, 0)),
    ],
)
def test_a_class_is_said_by_its_name_or_its_index(labels, names, wanted, suffix, tmp_path):
    assert meant(write(tmp_path, labels, suffix=suffix), names)[0] == wanted


@pytest.mark.parametrize(
    ("labels", "names", "says"),
    [
        (
            ["good", "bad"],
            ("LABEL_0", "LABEL_1"),
            r"label 'bad' is no class .*; the data has bad, good: name the classes .*id2label",
        ),
        (["positive", "neutral"], NAMES, "label 'neutral' is no class of the model, which has negative, positive"),
        (["2", "0"], NAMES, "label 2 is no class of the model, which has 2: labels must be 0 to 1"),
        (["positive", "7"], NAMES, "label '7' is no class"),
        ([0.5, 1], NAMES, r"label 0\.5 is no class"),
        ([float("inf"), 1], NAMES, "holds numbers; a text-classification task needs class indices or names"),
        ([5, 1], STARS, "label 5 is no class of the model, which has 5: labels must be 0 to 4"),
    ],
)
def test_what_is_no_class_is_refused_with_the_models_classes(labels, names, says, tmp_path):
    with pytest.raises(DatasetInvalid, match=says) as found:
        meant(write(tmp_path, labels), names)
    assert found.value.param == "task.columns.label"


def test_missing_labels_in_cells_are_missing_where_the_others_are_numbers(tmp_path):
    assert meant(write(tmp_path / "numbers", ["1", "NA", "0", "", "-1"], suffix="csv"), NAMES)[0] == (1, 0)
    assert meant(write(tmp_path / "names", ["NA", "b", ""], suffix="csv"), ("na", "b"))[0] == (0, 1)


HOT = [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
THREE = ("a", "b", "c")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize(
    "labels",
    [
        HOT,
        [[float(own) for own in row] for row in HOT],
        [[bool(own) for own in row] for row in HOT],
        [[at for at, own in enumerate(row) if own] for row in HOT],
        [[name for name, own in zip(THREE, row, strict=True) if own] for row in HOT],
    ],
)
def test_all_forms_of_several_classes_mean_the_same(labels, suffix, tmp_path):
    written = [json.dumps(own) for own in labels] if suffix == "csv" else labels
    found, _, notes = meant(write(tmp_path, written, suffix=suffix), THREE, "multi-label-classification")
    assert found == ((0,), (), (1, 2))
    assert bool(notes) == (len(labels[1]) == 3), "a guess is said"


@pytest.mark.parametrize(
    ("labels", "names", "wanted"),
    [
        ([[0, 1], [1]], ("a", "b"), ((0, 1), (1,))),
        ([[0, 1], [0, 0]], ("a", "b"), ((1,), ())),
        ([[0.0, 1.0], [1.0, 0.0]], ("a", "b"), ((1,), (0,))),
        ([[True, False]], ("a", "b"), ((0,),)),
        ([[1], [0]], ("a",), ((0,), ())),
        ([[0], []], ("a",), ((0,), ())),
        ([[0, 1], [1, 2]], THREE, ((0, 1), (1, 2))),
    ],
)
def test_indices_and_multi_hot_are_told_apart_by_all_rows(labels, names, wanted, tmp_path):
    assert meant(write(tmp_path, labels), names, "multi-label-classification")[0] == wanted


def test_one_split_decides_for_the_other(tmp_path):
    data = write(tmp_path, [[0, 1], [1, 1]], others=[[0, 1], [1, 0]])
    assert meant(data, ("a", "b"), "multi-label-classification")[1] == ((1,), (0,))


@pytest.mark.parametrize(
    ("labels", "names", "says"),
    [
        ([[0, 1], [1, 0]], ("a", "b"), "lists of one 0 and one 1: as indices every row has both classes, as multi-hot one"),
        ([[0, 1, 1, 0]], THREE, "look multi-hot, in lists of 4 zeros and ones; the model has 3 classes"),
        ([[0, 0], [1, 0, 1]], THREE, "zeros and ones that repeat, and of several lengths"),
        ([[0.2, 0.8, 0.0]], THREE, r"holds? 0\.2, which is neither the index of a class nor a zero or one"),
        ([[3]], THREE, "label 3 is no class"),
        (["a;b"], THREE, "column 'label' holds text; a multi-label-classification task needs lists"),
    ],
)
def test_lists_that_nothing_tells_apart_are_refused(labels, names, says, tmp_path):
    with pytest.raises(DatasetInvalid, match=says):
        meant(write(tmp_path, labels), names, "multi-label-classification")


def write_named(folder, labels, names):
    """Write Parquet files with the Hub's names of classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"label": {"names": list(names), "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    table = pa.table({"text": [f"word{at % 50} good" for at in range(len(labels))], "label": labels})
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        told = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(told), folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize(
    ("own", "names", "wanted", "says"),
    [
        (["negative", "positive"], NAMES, (0, 1, 1), None),
        (["positive", "negative"], NAMES, (1, 0, 0), "in another order than the model's, and are matched by their names: 0 "),
        (["Positive", "NEGATIVE"], NAMES, (1, 0, 0), "matched by their names"),
        (["neg", "pos"], NAMES, (0, 1, 1), "the data's classes are neg, pos; the model's are negative, positive: the names"),
        (["negative", "good"], NAMES, (0, 1, 1), "the names differ, and indices are taken as they are"),
        (["positive", "negative"], ("LABEL_0", "LABEL_1"), (0, 1, 1), None),
        (["0", "1"], NAMES, (0, 1, 1), None),
        (["contradiction", "neutral", "never"], ("neutral", "entailment", "contradiction"), (2, 0, 0), "another order"),
    ],
)
def test_classes_that_the_data_names_are_matched_to_the_models(own, names, wanted, says, tmp_path):
    found, _, notes = meant(write_named(tmp_path / "data", [0, 1, 1], own), names)
    assert found == wanted
    assert not notes if says is None else says in notes[-1]


def test_names_that_match_in_part_and_in_another_order_are_refused(tmp_path):
    data = write_named(tmp_path / "data", [0, 1, 2], ["entailment", "neutral", "other"])
    with pytest.raises(DatasetInvalid, match="some names are the same at other indices, and not all are"):
        meant(data, ("contradiction", "entailment", "neutral"))


@pytest.mark.long
def test_the_order_of_classes_is_followed_to_the_report(tmp_path):
    """The case classlabel-order: the same rows by names in another order, and by the model's own indices."""
    model = model_with(tmp_path / "model", NAMES)
    labels = [at % 3 % 2 for at in range(40)]
    named = write_named(tmp_path / "named", [1 - label for label in labels], ["positive", "negative"])
    right = write(tmp_path / "right", labels)
    reports = [run(spec_of(data, model=model), tmp_path / f"out-{data.name}", device="cpu") for data in (named, right)]
    assert reports[0].quality.dense == reports[1].quality.dense
    assert any("matched by their names" in said for said in reports[0].warnings)
    opposite = write(tmp_path / "opposite", [1 - label for label in labels])
    reversed_ = run(spec_of(opposite, model=model), tmp_path / "out-opposite", device="cpu")
    assert reversed_.quality.dense == pytest.approx(1 - reports[0].quality.dense)
    worst = min((reports[1], reversed_), key=lambda report: report.quality.dense)
    assert worst.quality.constant is not None
    assert (worst.quality.dense < worst.quality.constant) == any("worse than always" in said for said in worst.warnings)


def test_splits_that_name_their_classes_differently_are_refused(tmp_path):
    data = write_named(tmp_path / "data", [0, 1], NAMES)
    other = write_named(tmp_path / "other", [0, 1], NAMES[::-1])
    (other / "validation.parquet").rename(data / "validation.parquet")
    with pytest.raises(DatasetInvalid, match="the splits name their classes differently"):
        meant(data, NAMES)


@pytest.mark.parametrize(
    ("problem", "task_type", "refused"),
    [
        ("multi_label_classification", "text-classification", "choose task.type multi-label-classification"),
        ("single_label_classification", "multi-label-classification", "choose task.type text-classification"),
        ("regression", "text-classification", "choose task.type regression"),
        ("single_label_classification", "text-classification", None),
        ("multi_label_classification", "multi-label-classification", None),
        (None, "multi-label-classification", None),
    ],
)
def test_the_models_problem_type_must_be_the_tasks(problem, task_type, refused, tmp_path):
    model = model_with(tmp_path / "model", THREE, problem_type=problem)
    labels = [0, 1, 2] if task_type == "text-classification" else HOT
    spec = spec_of(write(tmp_path / "data", labels), task_type, model=model)
    if refused is None:
        check_local_inputs(spec)
    else:
        with pytest.raises(ModelUnreadable, match=refused):
            check_local_inputs(spec)


def test_scores_may_be_written_as_text(tmp_path):
    found, _, _ = meant(write(tmp_path, ["3.5", "nan", "-1e2", ""], suffix="csv"), ("score",), "regression")
    assert found == (3.5, -100.0)


def test_tags_are_matched_by_the_datas_names(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["O", "I-X", "B-X", "B-Y", "I-Y"]
    features = {"tags": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}}
    table = pa.table({"words": [["a", "b"], ["c", "d"]], "tags": [[2, 1], [0, 3]]})
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    for split in ("train", "validation"):
        pq.write_table(table.replace_schema_metadata(told), tmp_path / f"{split}.parquet")
    task = tiny.tiny_spec("m", tmp_path, task=tasks.task_of("token-classification", tmp_path)).task
    found = placed(task, [read_rows(task, "train")], ("O", "B-X", "I-X", "B-Y", "I-Y"))[0]
    assert found.labels == ((1, 2), (0, 3))
