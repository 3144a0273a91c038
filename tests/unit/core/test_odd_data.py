"""What only the job can know of a data set: said as an error where nothing is left, as a warning where something is."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from pruning_core.data.labels import with_classes
from pruning_core.data.read import read_rows
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.evidence.calibration import tokenise
from pruning_core.evidence.warnings import data_warnings
from pruning_core.models.load import load_task_model
from pruning_core.spec.labels import AnswersLabel
from tests import tasks, tiny
from tests.unit.core.test_task_input import lines, spec_of

CPU = torch.device("cpu")


def warnings_of(spec):
    model = load_task_model(tasks.Path(spec.model), spec.task.type, CPU)
    train, validation = (
        with_classes(spec.task, read_rows(spec.task, split), model.classes) for split in ("train", "validation")
    )
    return data_warnings(spec.task, model, train, validation, tokenise(model, train, max_length=32, batch_tokens=256))


def test_rows_without_text_or_target_are_left_out_and_counted(tmp_path):
    whole = {"text": "word1 good", "other": "good"}
    data = lines(tmp_path / "data", whole, whole | {"text": "  "}, whole | {"other": ""}, whole | {"other": None}, whole)
    spec = spec_of("summarization", tmp_path, data=data)
    assert len(read_rows(spec.task, "train")) == 2
    assert warnings_of(spec)[0] == "3 of 5 training rows were left out: their text or label is empty or missing"
    lines(data, {"text": "word1", "other": " "})
    with pytest.raises(DatasetInvalid, match="no usable row; it needs text in text and labels in other"):
        read_rows(spec.task, "train")


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["word1 good", "слово второе"], "50% of the calibration tokens are unknown to the tokenizer"),
        (["一 二 三"], "100% of the calibration tokens are unknown to the tokenizer; .* another language or script"),
        (["word1 good word2 bad word3 word4 word5 word6 word7 word8 Zebra"], None),
    ],
)
def test_texts_that_the_tokenizer_does_not_know_are_said(texts, says, tmp_path):
    data = lines(tmp_path / "data", *({"text": text, "label": 1} for text in texts))
    found = warnings_of(spec_of("text-classification", tmp_path, data=data))
    assert not found if says is None else re.search(says, found[0])


def test_texts_of_which_the_tokenizer_makes_nothing(tmp_path):
    data = lines(tmp_path / "data", {"text": "word1"})
    spec = spec_of("feature-extraction", tmp_path, data=data)
    path = tasks.Path(spec.model) / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": ".*"}, "content": ""}
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(DatasetInvalid, match="makes no token of the texts"):
        warnings_of(spec)


def test_answers_that_do_not_stand_where_they_are_said_to(tmp_path):
    def row(start):
        return {"question": "q", "context": "word1 good", "answers": {"text": ["good"], "answer_start": [start]}}

    spec = spec_of("question-answering", tmp_path, data=lines(tmp_path / "data", row(6), row(5), row(-4)))
    rows = read_rows(spec.task, "train")
    assert AnswersLabel().misplaced(rows.texts, rows.labels) == [1, 2]
    assert "2 of 3 training rows have answers that do not stand in their contexts" in warnings_of(spec)[0]
    lines(tmp_path / "data", row(5))
    with pytest.raises(DatasetInvalid, match=r"row 0 has 'good', and ' goo' stands at 5; answer_start counts characters"):
        warnings_of(spec)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_in_another_encoding_is_said_where_it_is_read(suffix, tmp_path):
    spec = spec_of("text-classification", tmp_path, data=lines(tmp_path / "data", {"text": "a", "label": 1}))
    rows = {"csv": "text,label\nschön,1\n", "jsonl": '{"text": "schön", "label": 1}\n'}[suffix]
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.jsonl").unlink()
        (tmp_path / "data" / f"{split}.{suffix}").write_bytes(rows.encode("latin-1"))
    with pytest.raises(DatasetInvalid, match="column 'text' of the train split is not written in UTF-8"):
        read_rows(spec.task, "train")


def test_a_token_without_an_embedding_is_refused(tiny_bert, tiny_sst2, tmp_path):
    """On a CPU the lookup raises something, and on a GPU it ends the process."""
    model, data = tmp_path / "model", tiny_sst2
    shutil.copytree(tiny_bert, model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary.update({word: index + 10**6 for word, index in vocabulary.items() if word.isalpha()})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    loaded = load_task_model(model, "text-classification", CPU)
    rows = read_rows(tiny.tiny_spec(model, data).task, "train")
    with pytest.raises(ModelUnreadable, match=r"makes a token 1000\d+, and the model has \d+ embeddings"):
        tokenise(loaded, rows, max_length=32, batch_tokens=256)
