"""Columns that nobody named: guessed by name and by what they hold, said, or refused; and chats, which a template renders."""

from __future__ import annotations

import pytest
import torch

from pruning_core.checks.request import check_local_inputs
from pruning_core.data.columns import resolved
from pruning_core.data.read import read_rows
from pruning_core.errors import DatasetInvalid
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS
from tests import tasks, tiny
from tests.unit.core.test_task_input import lines

TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"


def task_of(task_type, folder, columns=None):
    metric = KINDS[task_type].metrics[0]
    return TaskSpec.model_validate({"type": task_type, "dataset": str(folder), "metric": metric, "columns": columns or {}})


def guessed(task_type, folder, *rows, columns=None):
    task, notes = resolved(task_of(task_type, lines(folder, *rows), columns))
    found = task.columns
    return [*found.inputs], found.label, notes


@pytest.mark.parametrize(
    ("task_type", "row", "inputs", "label"),
    [
        ("text-classification", {"id": 1, "review": "a", "stars": 3, "title": "b"}, ["review"], "stars"),
        ("text-classification", {"sentence1": "a", "sentence2": "b", "label": 0}, ["sentence1", "sentence2"], "label"),
        ("text-classification", {"Text": "a", "Label": "good"}, ["Text"], "Label"),
        ("text-classification", {"words_of_mine": "a", "label": 0}, ["words_of_mine"], "label"),
        ("multi-label-classification", {"text": "a", "labels": [0], "id": "x"}, ["text"], "labels"),
        ("regression", {"premise": "a", "hypothesis": "b", "score": 0.5}, ["premise", "hypothesis"], "score"),
        ("token-classification", {"tokens": ["a"], "pos_tags": [1], "ner_tags": [0]}, ["tokens"], "ner_tags"),
        ("question-answering", {"question": "q", "context": "c", "answers": {"text": ["c"], "answer_start": [0]}},
         ["question", "context"], "answers"),
        ("summarization", {"article": "a", "highlights": "b", "id": "c"}, ["article"], "highlights"),
        ("translation", {"src": "a", "tgt": "b"}, ["src"], "tgt"),
        ("sentence-similarity", {"sentence1": "a", "sentence2": "b", "score": 1.0}, ["sentence1", "sentence2"], "score"),
        ("feature-extraction", {"sentence": "a", "sentence2": 4}, ["sentence"], None),
        ("text-generation", {"prompt_id": "x", "messages": [{"role": "user", "content": "a"}]}, ["messages"], None),
        ("fill-mask", {"only": "a", "number": 1}, ["only"], None),
    ],
)  # fmt: skip
def test_columns_are_guessed_and_the_guess_is_said(task_type, row, inputs, label, tmp_path):
    found = guessed(task_type, tmp_path, row, row)
    assert found[:2] == (inputs, label)
    (said,) = found[2]
    assert all(repr(name) in said for name in (*inputs, *([label] if label else [])))
    assert said.endswith("Name others in task.columns if that is wrong")
    left = sorted(set(row) - {*inputs, label})
    assert (f"not used: {', '.join(left)}" in said) == bool(left)


@pytest.mark.parametrize(
    ("task_type", "row", "says", "param"),
    [
        ("text-classification", {"a": "x", "b": "y", "label": 0}, r"several hold text\. The data has a, b, label", "text"),
        ("text-classification", {"text": 3, "label": 0}, "not clear which column holds a text: none", "text"),
        ("text-classification", {"text": "a", "x": 1, "y": 2}, "holds the labels, which are class indices or names", "label"),
        ("translation", {"translation": {"en": "a", "de": "b"}}, "'translation' holds objects with a text", "text"),
        ("sentence-similarity", {"sentence1": "a", "score": 1.0}, "holds a text and its second text", "text"),
    ],
)  # fmt: skip
def test_what_cannot_be_guessed_is_asked_for(task_type, row, says, param, tmp_path):
    with pytest.raises(DatasetInvalid, match=says) as found:
        guessed(task_type, tmp_path, row)
    assert found.value.param == f"task.columns.{param}"


def test_what_is_named_stays(tmp_path):
    row = {"text": "a", "body": "b", "label": 0, "class": 1}
    assert guessed("text-classification", tmp_path, row, columns={"text": ["body"]})[:2] == (["body"], "label")
    assert guessed("text-classification", tmp_path, row, columns={"label": "class"})[:2] == (["text"], "class")


@pytest.mark.long
def test_a_guess_goes_into_the_report_and_its_spec(tmp_path):
    model = tasks.write_task_model(tmp_path / "model", "text-classification")
    rows = [{"review": f"word{at} good", "stars": at % 2, "id": at} for at in range(20)]
    task = task_of("text-classification", lines(tmp_path / "data", *rows)).model_dump()
    spec = tiny.tiny_spec(model, tmp_path / "data", task=task)
    checked = check_local_inputs(spec)
    assert checked.spec.task.columns.inputs == ("review",)
    assert checked.findings.rows == {"train": 20, "validation": 20}
    assert sorted(checked.findings.classes.values()) == [10, 10]
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.warnings[0] == checked.findings.notes[0]
    assert "text in 'review', labels in 'stars'; not used: id" in report.warnings[0]


@pytest.mark.parametrize("value", [3, 2.5, True, ["a"], {"a": "b"}])
def test_what_is_no_text_is_refused_by_its_kind_or_left_out_and_said(value, tmp_path):
    kinds = {3: "numbers", 2.5: "numbers", True: "true and false", "['a']": "lists of text", "{'a': 'b'}": "objects"}
    kind = "true and false" if value is True else kinds[str(value) if isinstance(value, list | dict) else value]
    task = task_of("fill-mask", lines(tmp_path / "all", {"text": value}), {"text": ["text"]})
    with pytest.raises(DatasetInvalid, match=f"column 'text' of the train split holds {kind}, and text is needed there"):
        read_rows(task, "train")
    task = task_of("fill-mask", lines(tmp_path / "some", {"text": value}, {"text": "a"}, {"text": None}), {"text": ["text"]})
    rows = read_rows(task, "train")
    assert (rows.texts, rows.left_out) == ((("a",),), 2)
    assert rows.notes == (f"1 of 3 train rows hold {kind} in 'text', and were left out",)


def test_numbers_and_dates_of_a_csv_file_are_text(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("text,label\n12,0\n2024-01-05,1\n3.50,1\n")
    rows = read_rows(task_of("text-classification", tmp_path, {"text": ["text"], "label": "label"}), "train")
    assert rows.texts == (("12",), ("2024-01-05",), ("3.50",))


def test_dates_of_a_typed_file_are_refused_as_such(tmp_path):
    import datetime as dt

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [dt.date(2024, 1, 5)]}), tmp_path / "train.parquet")
    with pytest.raises(DatasetInvalid, match="holds dates or times, and text is needed there"):
        read_rows(task_of("fill-mask", tmp_path, {"text": ["text"]}), "train")


def chats(at):
    return [{"role": "user", "content": f"word{at} good"}, {"role": "assistant", "content": "word2 bad"}]


def chat_spec(folder, *rows, template=TEMPLATE):
    model = tasks.write_task_model(folder / "model", "text-generation")
    if template is not None:
        (model / "chat_template.jinja").write_text(template)
    return tiny.tiny_spec(model, folder / "data", task=task_of("text-generation", lines(folder / "data", *rows)).model_dump())


@pytest.mark.long
def test_chats_mean_what_the_template_makes_of_them(tmp_path):
    rows = [{"messages": chats(at)} for at in range(20)]
    shared = [
        {"conversations": [{"from": "human", "value": f"word{at} good"}, {"from": "gpt", "value": "word2 bad"}]}
        for at in range(20)
    ]
    texts = [{"text": f"user word{at} good assistant word2 bad "} for at in range(20)]
    found = {}
    for name, own in (("messages", rows), ("conversations", shared), ("texts", texts)):
        spec = chat_spec(tmp_path / name, *own)
        check_local_inputs(spec)
        found[name] = run(spec, tmp_path / f"out-{name}", device="cpu")
    assert found["messages"].data.fingerprint == found["conversations"].data.fingerprint == found["texts"].data.fingerprint
    assert found["messages"].quality == found["texts"].quality


def test_a_template_brings_its_own_special_tokens(tmp_path):
    from pruning_core.models.load import load_task_model

    model = tasks.write_task_model(tmp_path / "model", "fill-mask")  # its tokenizer puts [CLS] and [SEP] around texts
    tasks.write_task_model(tmp_path / "causal", "text-generation")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "causal" / name).write_bytes((model / name).read_bytes())
    (tmp_path / "causal" / "chat_template.jinja").write_text("[CLS] {{ messages[0].content }} [SEP]")
    loaded = load_task_model(tmp_path / "causal", "text-generation", torch.device("cpu"))
    data = lines(tmp_path / "data", {"messages": chats(1)}, {"messages": chats(2)})
    rows = loaded.family.prepared(loaded, read_rows(task_of("text-generation", data), "train"))
    ids = loaded.family.encode(loaded, rows, 64).columns["input_ids"][0].tolist()
    assert loaded.tokenizer.convert_ids_to_tokens(ids)[:5] == ["[CLS]", "word1", "good", "[SEP]", "[CLS]"]


@pytest.mark.parametrize(
    ("rows", "template", "says"),
    [
        ([{"messages": chats(1)}] * 2, None, "the model's tokenizer has no chat template"),
        ([{"messages": [{"role": "user", "content": [{"type": "image"}]}]}] * 2, TEMPLATE, "contents are lists of parts"),
    ],
)
def test_chats_that_nothing_renders_are_refused_at_check(rows, template, says, tmp_path):
    with pytest.raises(DatasetInvalid, match=says):
        check_local_inputs(chat_spec(tmp_path, *rows, template=template))


def test_chats_that_the_template_refuses_are_left_out_and_said(tmp_path):
    strict = "{% if messages[0].role != 'user' %}{{ raise_exception('a user begins') }}{% endif %}" + TEMPLATE
    rows = [{"messages": chats(at)} for at in range(20)]
    spec = chat_spec(tmp_path, *rows, {"messages": chats(1)[::-1]}, template=strict)
    report = run(spec, tmp_path / "out", device="cpu")
    assert any(
        "1 of 21 chats were left out: the tokenizer's chat template refuses them (a user begins)" in said
        for said in report.warnings
    )
