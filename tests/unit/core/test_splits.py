"""Where the splits of a data set lie: in folders as people have them, and what is said where one is not found."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from pruning_core.data.opening import open_split
from pruning_core.data.shares import rows_of
from pruning_core.data.splits import NoSuchSplit, find_split
from pruning_core.errors import DatasetInvalid
from tests.unit.core.test_tables import lines, read, task

TRAIN = [{"text": f"train {i}", "label": i % 2} for i in range(40)]
VALIDATION = [{"text": f"validation {i}", "label": i % 2} for i in range(7)]


def texts(data: Path, role: str = "train", **changes: object) -> list[object]:
    return [text for (text,) in read(data, role, ["text"], **changes)]


def notes(data: Path, role: str = "validation", **changes: object) -> str:
    return " ".join(open_split(task(data, **changes), role).notes)


def put(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text(lines(rows))


def expect(data: Path, *, train=TRAIN, validation=VALIDATION, **changes: object) -> None:
    assert texts(data, "train", **changes) == [row["text"] for row in train]
    assert texts(data, "validation", **changes) == [row["text"] for row in validation]


@pytest.mark.parametrize(
    "layout",
    [
        "{split}.jsonl",
        "{split}.ndjson",
        "{split}.parquet",
        "{split}/part-0.parquet",
        "{split}/0000.jsonl",
        "{split}-00000-of-00001.parquet",
        "data/{split}.jsonl",
        "data/{split}-00000-of-00001.parquet",
        "data/{split}-00000-of-00001-0f3c9a8b7d6e5f40.parquet",
        "plain_text/{split}-00000-of-00001.parquet",
        "plain_text/data/{split}.jsonl",
    ],
)
def test_every_layout(tmp_path, layout):
    put(tmp_path / layout.format(split="train"), TRAIN)
    put(tmp_path / layout.format(split="validation"), VALIDATION)
    expect(tmp_path)
    assert ("plain_text" in notes(tmp_path)) == layout.startswith("plain_text")


@pytest.mark.parametrize(
    "layout", ["{}-{:05}-of-00012.parquet", "data/{}-{:05}-of-00012.parquet", "{}/{}-{:05}-of-00012.jsonl"]
)
def test_shards_are_read_in_their_order_and_a_missing_one_is_refused(tmp_path, layout):
    paths = [tmp_path / layout.format(*(["train"] * (layout.count("{}"))), i) for i in range(12)]
    for i, path in enumerate(paths):
        put(path, TRAIN[i * 3 : i * 3 + 3])
    put(tmp_path / layout.format(*["validation"] * layout.count("{}"), 0).replace("00012", "00001"), VALIDATION)
    expect(tmp_path, train=TRAIN[:36])
    paths[4].unlink()
    with pytest.raises(DatasetInvalid, match="the train split has 12 files, and train-00004-of-00012 is missing"):
        texts(tmp_path)
    paths[4].write_bytes(b"")
    with pytest.raises(DatasetInvalid, match=f"{paths[4].name}"):
        texts(tmp_path)


def test_two_versions_of_a_split_are_refused(tmp_path):
    put(tmp_path / "data" / "train-00000-of-00001-aaaa.parquet", TRAIN)
    put(tmp_path / "data" / "train-00000-of-00001-bbbb.parquet", TRAIN)
    with pytest.raises(DatasetInvalid, match="files with the same number"):
        texts(tmp_path)


def test_shards_need_the_columns_that_are_asked_for(tmp_path):
    put(tmp_path / "train-00000-of-00002.parquet", TRAIN)
    put(tmp_path / "train-00001-of-00002.parquet", [{"sentence": "a", "label": 1}])
    with pytest.raises(DatasetInvalid, match=r"train-00001-of-00002\.parquet has no column 'text', which train-00000"):
        texts(tmp_path)


def test_parts_are_read_in_the_order_of_their_numbers(tmp_path):
    for i in range(11):
        put(tmp_path / "train" / f"part-{i}.jsonl", TRAIN[i : i + 1])
    put(tmp_path / "validation.jsonl", VALIDATION)
    expect(tmp_path, train=TRAIN[:11])


@pytest.mark.parametrize("shards", [1, 3])
def test_what_save_to_disk_writes_is_what_load_from_disk_reads(tmp_path, shards):
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(TRAIN), "validation": datasets.Dataset.from_list(VALIDATION)}
    )
    both.save_to_disk(tmp_path / "both", num_shards={"train": shards, "validation": 1})
    loaded = datasets.load_from_disk(str(tmp_path / "both"))
    expect(tmp_path / "both", train=loaded["train"].to_list(), validation=loaded["validation"].to_list())
    (tmp_path / "both" / "train" / f"data-00000-of-0000{shards}.arrow").unlink()
    with pytest.raises(DatasetInvalid, match=r"data-00000-of-0000. of the saved data set is missing|\.arrow of the saved"):
        texts(tmp_path / "both")
    datasets.Dataset.from_list(TRAIN).save_to_disk(tmp_path / "one")
    assert sorted(texts(tmp_path / "one") + texts(tmp_path / "one", "validation")) == sorted(row["text"] for row in TRAIN)


def test_state_of_a_saved_data_set_names_files_of_its_folder_alone(tmp_path):
    put(tmp_path / "elsewhere.jsonl", TRAIN)
    (tmp_path / "data").mkdir()
    for name in ("../elsewhere.jsonl", str(tmp_path / "elsewhere.jsonl"), None, 3):
        (tmp_path / "data" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(DatasetInvalid, match="names no files of its folder"):
            texts(tmp_path / "data")


README = """---
configs:
- config_name: en
  default: true
  data_files:
  - split: train
    path: raw/en/*.jsonl
  - split: test
    path: "raw/**/held.jsonl"
- config_name: de
  data_dir: raw
  data_files: {train: de.jsonl, validation: [de-*.jsonl]}
---
Text.
"""


def test_a_readme_describes_configurations(tmp_path):
    (tmp_path / "README.md").write_text(README)
    put(tmp_path / "raw" / "en" / "a.jsonl", TRAIN[:4])
    put(tmp_path / "raw" / "en" / "b.jsonl", TRAIN[4:])
    put(tmp_path / "raw" / "later" / "held.jsonl", VALIDATION)
    put(tmp_path / "raw" / "de.jsonl", VALIDATION)
    put(tmp_path / "raw" / "de-1.jsonl", TRAIN)
    expect(tmp_path)
    assert "the data set has no validation split; its test split is used as one" in notes(tmp_path)
    expect(tmp_path, train=VALIDATION, validation=TRAIN, config="de")
    (tmp_path / "README.md").write_text(README.replace("  default: true\n", ""))
    with pytest.raises(DatasetInvalid, match=r"several configurations: en, de. Name one in task\.config"):
        texts(tmp_path)
    (tmp_path / "README.md").write_text(README.replace("raw/en/*", "../*"))
    with pytest.raises(DatasetInvalid, match="outside of the data set"):
        texts(tmp_path)


def test_configurations_as_folders(tmp_path):
    for config, rows in (("en", TRAIN), ("de", VALIDATION)):
        put(tmp_path / config / "train.jsonl", rows)
        put(tmp_path / config / "test.jsonl", rows)
    expect(tmp_path, train=VALIDATION, validation=VALIDATION, config="de")
    with pytest.raises(NoSuchSplit, match=r"several folders with splits: de, en. Name one of them in task\.config"):
        texts(tmp_path)
    put(tmp_path / "train.jsonl", TRAIN)
    put(tmp_path / "validation.jsonl", VALIDATION)
    expect(tmp_path, config="sst2")


def test_a_repository_of_the_hub_s_cache(tmp_path):
    cache = tmp_path / "datasets--org--name"
    new, old = "a" * 40, "b" * 40
    for commit, rows in ((new, TRAIN), (old, VALIDATION)):
        put(cache / "blobs" / commit, [])
        for split, own in (("train", rows), ("validation", VALIDATION)):
            put(cache / "snapshots" / commit / f"{split}.jsonl", own)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(new)
    (cache / "refs" / "v1").write_text(old)
    expect(cache)
    for revision in (old, "v1"):
        expect(cache, train=VALIDATION, revision=revision)
    with pytest.raises(DatasetInvalid, match="has no revision v2; it has aaaa"):
        texts(cache, revision="v2")
    with pytest.raises(DatasetInvalid, match="no repository of the Hub's cache; leave it out"):
        texts(tmp_path, revision="main")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dev", "valid", "val", "eval", "test", "Validation", "DEV"])
def test_validation_by_another_name_is_taken_and_said(tmp_path, name):
    put(tmp_path / "train.jsonl", TRAIN)
    put(tmp_path / f"{name}.jsonl", VALIDATION)
    expect(tmp_path)
    assert notes(tmp_path) == f"the data folder has no validation split; its {name} split is used as one"
    assert not notes(tmp_path, "train")


def test_the_test_split_is_the_last_resort(tmp_path):
    for name in ("training", "test", "dev"):
        put(tmp_path / f"{name}.jsonl", TRAIN if name == "training" else VALIDATION if name == "dev" else [])
    expect(tmp_path)


def test_splits_by_name(tmp_path):
    put(tmp_path / "fit.jsonl", TRAIN)
    put(tmp_path / "sub" / "judge-00000-of-00001.parquet", VALIDATION)
    expect(tmp_path, train_split="fit", validation_split="sub/judge")
    expect(tmp_path, train_split="fit.jsonl", validation_split="sub/judge")


@pytest.mark.parametrize("field", ["train_split", "validation_split", "config"])
def test_names_stay_within_the_folder(tmp_path, field):
    put(tmp_path / "secret.jsonl", TRAIN)
    for name in ("../secret", str(tmp_path / "secret"), "a/../../secret", "a" * 300):
        with pytest.raises(DatasetInvalid, match=r"leads out of|bytes at most") as found:
            texts(tmp_path / "data", "validation", **{field: name})
        assert found.value.param == f"task.{field}"


def test_what_is_not_found_is_told_with_what_is_there(tmp_path):
    for name in ("train", "unsupervised"):
        put(tmp_path / f"{name}.jsonl", TRAIN)
    with pytest.raises(NoSuchSplit, match=r"no validation split; it has train, unsupervised. Name .* task\.validation_share"):
        texts(tmp_path, "validation")
    with pytest.raises(NoSuchSplit, match=r"no judge split; it has train") as found:
        texts(tmp_path, "validation", validation_split="judge")
    assert found.value.param == "task.validation_split"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.pdf").write_text("")
    with pytest.raises(NoSuchSplit, match=r"no train split; it holds notes\.pdf"):
        texts(tmp_path / "other")
    with pytest.raises(DatasetInvalid, match=r"notes\.pdf is no data file"):
        texts(tmp_path / "other" / "notes.pdf")
    with pytest.raises(DatasetInvalid, match="no such folder"):
        texts(tmp_path / "nowhere")


def test_a_lone_validation_split_is_not_trained_on(tmp_path):
    put(tmp_path / "test.jsonl", VALIDATION)
    with pytest.raises(NoSuchSplit, match="no train split; it has test"):
        texts(tmp_path)


def test_several_forms_of_a_split_are_said(tmp_path):
    put(tmp_path / "train.jsonl", VALIDATION)
    put(tmp_path / "train.parquet", TRAIN)
    put(tmp_path / "validation.jsonl", VALIDATION)
    expect(tmp_path)
    assert "several forms; train.parquet was read" in notes(tmp_path, "train")


# --- a share ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train.jsonl", "reviews.jsonl", "reviews.jsonl as a file", "all/0.jsonl"])
def test_a_tenth_is_held_out_where_there_is_one_split(tmp_path, name):
    put(tmp_path / name.split()[0], TRAIN)
    data = tmp_path / "reviews.jsonl" if "as a file" in name else tmp_path
    train, validation = texts(data), texts(data, "validation")
    assert len(validation) == 4
    assert not set(train) & set(validation)
    assert set(train) | set(validation) == {row["text"] for row in TRAIN}
    assert "10% of the rows of" in notes(data)
    assert open_split(task(data), "validation").name == "the validation split"


def test_a_share_that_is_asked_for(tmp_path):
    put(tmp_path / "fit.jsonl", TRAIN)
    put(tmp_path / "validation.jsonl", VALIDATION)
    changes = {"train_split": "fit", "validation_share": 0.25}
    assert len(texts(tmp_path, "validation", **changes)) == 10
    assert len(texts(tmp_path, **changes)) == 30
    assert "25% of the rows of fit are held out to validate on (task.validation_share)" in notes(tmp_path, **changes)
    assert find_split(tmp_path, task(tmp_path, **changes), "train").share == 0.25


@pytest.mark.parametrize("share", [0.5, 1 / 3, 0.2, 0.1, 0.07, 0.001])
def test_shares_are_exact_spread_out_and_never_overlap(share):
    rows = range(5000)
    train, held = list(rows_of(rows, share, "train")), list(rows_of(rows, share, "validation"))
    assert sorted(train + held) == list(rows)
    assert abs(len(held) - share * 5000) <= 1
    assert list(rows_of(range(2500), share, "validation")) == [row for row in held if row < 2500]
    if share <= 0.2:  # labels that come in turns do not decide which rows are held out
        assert len({row % round(1 / share) for row in held}) > 1


def test_two_rows_are_enough_for_both_parts():
    assert list(rows_of("ab", 0.1, "train")) == ["a"]
    assert list(rows_of("ab", 0.1, "validation")) == ["b"]


# --- revisions --------------------------------------------------------------------------------------------------------


def test_a_revision_may_stand_after_the_name():
    assert task("org/name@v1").dataset == "org/name"
    assert task("org/name@v1").revision == "v1"
    assert task("org/name@v1", revision="v1").revision == "v1"
    assert task("/data/a@b").dataset == "/data/a@b"
    for wrong, said in (("org/name@", "org/name@revision"), ("org/name@v1", "named twice")):
        with pytest.raises(ValueError, match=said):
            task(wrong, revision="v2")


def test_data_of_the_hub_is_read_by_the_same_reader_at_its_revision(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cache = tmp_path / "datasets--org--name"
    for name, commit, rows in (("main", "a" * 40, TRAIN), ("v1", "b" * 40, VALIDATION)):
        for split, own in (("train", rows), ("test", VALIDATION)):
            put(cache / "snapshots" / commit / "default" / f"{split}-00000-of-00001.parquet", own)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / name).write_text(commit)
    expect("org/name")
    expect("org/name@v1", train=VALIDATION)
    expect("org/name", train=VALIDATION, revision="v1")
    with pytest.raises(DatasetInvalid, match="could not be loaded"):
        texts("org/name@v2")


def test_what_lies_beside_a_split_does_not_matter(tmp_path):
    put(tmp_path / "train.jsonl", TRAIN)
    put(tmp_path / "validation.jsonl", VALIDATION)
    put(tmp_path / "old" / "train-00000-of-00002.jsonl", VALIDATION)
    put(tmp_path / ".cache" / "train-00001-of-00002.jsonl", VALIDATION)
    put(tmp_path / "saved" / "state.json", [{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}])
    put(tmp_path / "broken" / "state.json", [{}, {}])
    (tmp_path / "images").mkdir()
    for i in range(20):
        (tmp_path / "images" / f"{i}.png").write_bytes(b"")
    expect(tmp_path)
    with pytest.raises(DatasetInvalid, match=r"data-00000-of-00001\.arrow of the saved data set is missing"):
        texts(tmp_path, "validation", validation_split="saved")
    with pytest.raises(DatasetInvalid, match=r"state\.json of the saved data set cannot be read"):
        texts(tmp_path, "validation", validation_split="broken")


def test_a_folder_as_spark_writes_it(tmp_path):
    put(tmp_path / "train.parquet" / "part-00000-1a2b.snappy.parquet", TRAIN)
    (tmp_path / "train.parquet" / "_SUCCESS").write_text("")
    put(tmp_path / "validation.parquet" / "part-00000-1a2b.snappy.parquet", VALIDATION)
    expect(tmp_path)


def test_patterns_of_a_stranger_cost_little(tmp_path):
    put(tmp_path / "train.txt", TRAIN)
    head = "---\nconfigs:\n- config_name: x\n  data_files: [{{split: train, path: {}}}]\n---\n"
    for path in (["**/" * 1000 + "*"], [f"{i}*" for i in range(1000)]):
        (tmp_path / "README.md").write_text(head.format(json.dumps(path)))
        with pytest.raises(DatasetInvalid, match=r"README\.md names the files of the train split by more than"):
            texts(tmp_path)
