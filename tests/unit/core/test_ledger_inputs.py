"""What the ledger reads of users: specs, texts, and tasks of lm-eval, good and bad."""

import json
import os
from pathlib import Path

import pytest
import torch

from pruning_core.checks.ledger import check_harness_installed
from pruning_core.checks.request import check_local_inputs
from pruning_core.data.ledger_tasks import read_tasks
from pruning_core.data.ledger_texts import MOST_BYTES, read_texts
from pruning_core.errors import DatasetInvalid, Several
from pruning_core.models.load import load_task_model
from pruning_core.spec.data_places import TASK_DATA, data_places, with_data
from pruning_core.spec.ledger import LedgerSpec
from pruning_core.spec.prune import PruneSpec
from tests import tiny
from tests.compared import spec_of
from tests.unit.core.test_ledger import decoder_spec, write_decoder

PARAM = "evaluation.ledger.texts.german"
TEXT = "Ein langer Satz, der sich wiederholt. " * 40
TASK = {
    "task": "plus",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{a}} plus {{b}} is",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{label}}",
}
ROWS = [{"a": i, "b": 2, "choices": [str(i + 2), str(i + 3)], "label": 0} for i in range(20)]


# --- specs --------------------------------------------------------------------------------------------------------------


def test_a_spec_without_a_ledger_is_written_as_before():
    spec = spec_of("text-generation", "perplexity")
    assert "ledger" not in spec.model_dump()["evaluation"]
    assert spec == spec_of("text-generation", "perplexity", evaluation={"ledger": False})
    assert {own.param for own in data_places(spec)} == {TASK_DATA}


def test_true_is_the_ledger_of_made_texts():
    spec = spec_of("text-generation", "perplexity", evaluation={"ledger": True})
    assert spec.evaluation.ledger == LedgerSpec()
    assert PruneSpec.model_validate(spec.model_dump(mode="json")) == spec
    one, two = ({"texts": dict.fromkeys(names, "/x")} for names in (("b", "a"), ("a", "b")))
    assert json.dumps(LedgerSpec(**one).model_dump()) == json.dumps(LedgerSpec(**two).model_dump()), "equal specs, equal work"


def test_places_are_known_by_their_fields_and_can_be_moved():
    spec = spec_of("text-generation", "perplexity", evaluation={"ledger": {"texts": {"german": "/a"}, "lm_eval": "/b"}})
    of_ledger = {own.param: own.reference for own in data_places(spec) if own.here}
    assert of_ledger == {PARAM: "/a", "evaluation.ledger.lm_eval": "/b"}
    moved = with_data(spec, {PARAM: "/c"})
    assert (moved.evaluation.ledger.texts, moved.evaluation.ledger.lm_eval) == ({"german": "/c"}, "/b")
    assert moved.but(evaluation=spec.evaluation) == spec


@pytest.mark.parametrize(
    ("kind", "metric", "ledger", "said"),
    [
        ("text-classification", "accuracy", True, "a ledger is for decoders and embedders"),
        ("fill-mask", "loss", True, "and not for fill-mask"),
        ("feature-extraction", "cosine", {"lm_eval": "/x"}, "lm_eval is for text-generation"),
        ("text-generation", "loss", {"texts": {"../x": "/x"}}, "a text's name has up to 32 letters"),
        ("text-generation", "loss", {"items": 2}, "greater than or equal to 12"),
        ("text-generation", "loss", {"texts": {f"t{i}": "/x" for i in range(9)}}, "at most 8"),
    ],
)
def test_ledgers_that_cannot_be_are_refused(kind, metric, ledger, said):
    with pytest.raises(ValueError, match=said):
        spec_of(kind, metric, evaluation={"ledger": ledger})


# --- texts --------------------------------------------------------------------------------------------------------------


def test_texts_are_read_from_files_and_folders(tmp_path: Path):
    plain, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text(f"\ufeff{TEXT}")
    lines.write_text(json.dumps({"text": "x" * 700, "other": 1}) + "\n\n" + json.dumps("y" * 700) + "\n")
    (tmp_path / "notes.pdf").write_bytes(b"\xff\xfe")
    assert read_texts(str(plain), PARAM) == [TEXT]
    assert read_texts(str(lines), PARAM) == ["x" * 700, "y" * 700]
    assert read_texts(str(tmp_path), PARAM) == [TEXT, "x" * 700, "y" * 700]


def test_a_long_text_is_read_to_a_bound_and_ends_with_a_line(tmp_path: Path):
    path = tmp_path / "long.txt"
    path.write_text("Straße\n" * 200_000)
    (text,) = read_texts(str(path), PARAM)
    assert MOST_BYTES - 16 < len(text.encode()) <= MOST_BYTES
    assert text.endswith("Straße\n")
    one = tmp_path / "one.txt"
    one.write_text("ß" * MOST_BYTES)
    assert set(read_texts(str(one), PARAM)[0]) == {"ß"}, "a character is not cut in two"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "the text is empty"),
        ("a.txt", b" \n \n", "the text is empty"),
        ("a.txt", b"short", "has 5 bytes, and the ledger needs 10 blocks of 64 tokens"),
        ("a.txt", "Straße ".encode("latin-1") * 200, "not written in UTF-8"),
        ("a.txt", b"\0" * 2000, "binary data"),
        ("a.csv", TEXT.encode(), "must end in .txt or .jsonl"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": 1}\n', "line 2 of a.jsonl has no text"),
        ("a.jsonl", b'{"text": \n', "line 1 of a.jsonl is not readable JSON"),
        ("a.jsonl", b"[" * 100_000, "nested too deeply|not readable"),
    ],
)
def test_texts_that_cannot_be_judged_on_are_refused(tmp_path: Path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetInvalid, match=said) as found:
        read_texts(str(path), PARAM)
    assert found.value.param == PARAM
    assert str(tmp_path) not in found.value.message


def test_places_without_a_text_are_refused(tmp_path: Path):
    for place, said in (
        (tmp_path / "none.txt", "no such file or folder"),
        (tmp_path, "holds no file that ends in .txt"),
    ):
        with pytest.raises(DatasetInvalid, match=said):
            read_texts(str(place), PARAM)
    with pytest.raises(DatasetInvalid, match="given by a path"):
        read_texts("org/german", PARAM)
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    with pytest.raises(DatasetInvalid, match="no such file or folder"):
        read_texts(str(pipe), PARAM)


def test_check_names_every_bad_text(tmp_path: Path):
    model, data = write_decoder(tmp_path / "model"), tiny.write_jsonl(tmp_path / "data")
    (tmp_path / "empty.txt").write_text("")
    texts = {"german": str(tmp_path / "empty.txt"), "greek": str(tmp_path / "none.txt")}
    with pytest.raises(Several) as found:
        check_local_inputs(decoder_spec(model, data, {"texts": texts, "lm_eval": str(tmp_path / "none")}))
    assert [one.param for one in found.value.errors] == [PARAM, "evaluation.ledger.texts.greek", "evaluation.ledger.lm_eval"]
    check_local_inputs(decoder_spec(model, data, True))


# --- tasks of lm-eval ---------------------------------------------------------------------------------------------------


def write_task(folder: Path, changes: dict | None = None, rows: object = ROWS, text: str | None = None) -> Path:
    import yaml

    folder.mkdir(exist_ok=True)
    task = {key: value for key, value in (TASK | (changes or {})).items() if value is not None}
    (folder / "plus.yaml").write_text(yaml.safe_dump(task) if text is None else text)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_a_task_is_read_as_data(tmp_path: Path):
    (task,) = read_tasks(str(write_task(tmp_path / "tasks", {"tag": "mine", "metadata": {"version": 1}})))
    assert (task.name, task.metric, len(task.docs)) == ("plus", "acc", 20)
    assert set(task.config) == {"task", "output_type", "doc_to_text", "doc_to_choice", "doc_to_target"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"process_docs": "x"}, "sets process_docs, which is not read here"),
        ({"include": "/etc/passwd"}, "sets include"),
        ({"unsafe_code": True}, "sets unsafe_code"),
        ({"custom_dataset": "x"}, "sets custom_dataset"),
        ({"dataset_path": "org/data"}, "nothing is fetched from the Hub"),
        ({"dataset_kwargs": {"data_files": {"test": "../rows.jsonl"}}}, "outside of its folder"),
        ({"dataset_kwargs": {"data_files": {"test": "/etc/passwd"}}}, "outside of its folder"),
        ({"dataset_kwargs": {"data_files": "rows.jsonl", "trust_remote_code": True}}, "data_files, and nothing else"),
        ({"dataset_kwargs": {"data_files": "none.jsonl"}}, "none.jsonl is missing"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "hf_evaluate, which runs code of the Hub"),
        ({"metric_list": [{"metric": "rouge"}]}, "metrics that are not computed here"),
        ({"output_type": "generate_until"}, "multiple_choice and loglikelihood are judged here"),
        ({"num_fewshot": 5}, "sets num_fewshot"),
        ({"doc_to_text": None}, "has no doc_to_text"),
        ({"doc_to_choice": {"a": 1}}, "doc_to_choice must be a text or a template"),
        ({"task": ""}, "has no name"),
    ],
)
def test_tasks_that_reach_for_more_are_refused_by_name(tmp_path: Path, changes, said):
    with pytest.raises(DatasetInvalid, match=said) as found:
        read_tasks(str(write_task(tmp_path / "tasks", changes)))
    assert found.value.param == "evaluation.ledger.lm_eval"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: x\ndoc_to_text: !function utils.f\n", "names code .!function utils.f"),
        ("task: !!python/object/apply:os.system [ls]\n", "names code"),
        ("a: &a [1]\nb: [*a, *a]\n", "references"),
        ("task: [", "not readable YAML"),
        ("- task\n", "must hold one task"),
        ("x: " + "y" * 70_000, "more than 65536 bytes"),
        ("[" * 5000, "not readable YAML"),
    ],
)
def test_yaml_is_data_alone(tmp_path: Path, text, said):
    with pytest.raises(DatasetInvalid, match=said):
        read_tasks(str(write_task(tmp_path / "tasks", text=text)))


def test_folders_with_code_or_without_a_task_are_refused(tmp_path: Path):
    folder = write_task(tmp_path / "tasks")
    (folder / "utils.py").write_text("raise SystemExit")
    with pytest.raises(DatasetInvalid, match=r"holds utils\.py, which is code"):
        read_tasks(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetInvalid, match="holds no task"):
        read_tasks(str(tmp_path / "empty"))
    with pytest.raises(DatasetInvalid, match="no such folder"):
        read_tasks(str(tmp_path / "none"))
    link = write_task(tmp_path / "linked")
    (link / "rows.jsonl").unlink()
    (link / "rows.jsonl").symlink_to(folder / "rows.jsonl")
    with pytest.raises(DatasetInvalid, match="outside of its folder"):
        read_tasks(str(link))


@pytest.mark.parametrize(("rows", "said"), [([], "has no row"), ([1, 2], "one object with named values")])
def test_rows_that_are_none_are_refused(tmp_path: Path, rows, said):
    with pytest.raises(DatasetInvalid, match=said):
        read_tasks(str(write_task(tmp_path / "tasks", rows=rows)))


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("pruning_core.checks.ledger.find_spec", lambda _name: None)
    with pytest.raises(DatasetInvalid, match=r"coppice-prune\[ledger\]"):
        check_harness_installed()


# --- lm-eval itself -----------------------------------------------------------------------------------------------------


def observed(folder: Path, tmp_path: Path, most: int = 12):
    pytest.importorskip("lm_eval")
    from pruning_core.measure.ledger.harness import HarnessPart

    model = load_task_model(write_decoder(tmp_path / "model"), "text-generation", torch.device("cpu"))
    (task,) = read_tasks(str(folder))
    part = HarnessPart.of(model, spec_of("text-generation", "perplexity").task, task, most)
    return part, part.observe(model, lambda _step: None), model


def test_lm_eval_judges_as_its_own_harness_does(tmp_path: Path):
    """Compare with likelihoods that transformers computes of the same texts, one at a time."""
    part, found, model = observed(write_task(tmp_path / "tasks"), tmp_path)
    assert len(found) == 12
    wanted = []
    for row in ROWS[:12]:
        scores = []
        for choice in row["choices"]:
            context, whole = (
                model.tokenizer(text)["input_ids"] for text in (f"{row['a']} plus 2 is", f"{row['a']} plus 2 is {choice}")
            )
            logits = model.model(torch.tensor([whole])).logits[0].log_softmax(-1)
            places = range(len(context), len(whole))
            scores.append(sum(float(logits[at - 1, whole[at]]) for at in places))
        wanted.append(scores.index(max(scores)) == row["label"])
    assert found.tolist() == wanted
    (row,) = part.rows(found, found, 0)
    assert (row.subject, row.metric, row.rows, row.title) == ("plus", "acc", 12, "lm-eval, acc")
    assert row.low == pytest.approx(-row.high), "Bonett and Price's interval of no change"


def test_lm_eval_judges_last_words(tmp_path: Path):
    changes = {"output_type": "loglikelihood", "doc_to_choice": None, "doc_to_target": " {{choices[0]}}"}
    _part, found, _model = observed(write_task(tmp_path / "tasks", changes), tmp_path)
    assert found.dtype == bool
    assert len(found) == 12


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch gone').read() }}",
        "{{ nothing }}",
    ],
)
def test_templates_run_in_a_sandbox(tmp_path: Path, template, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetInvalid, match="lm-eval cannot read the task plus"):
        observed(write_task(tmp_path / "tasks", {"doc_to_text": template}), tmp_path)
    assert not (tmp_path / "gone").exists()


def embedder_spec(model: Path, data: Path, texts: dict[str, Path]) -> PruneSpec:
    task = {"type": "feature-extraction", "columns": {"text": ["text"]}, "dataset": str(data), "metric": "cosine"}
    ledger = {"texts": {name: str(path) for name, path in texts.items()}}
    return tiny.tiny_spec(model, data, task=task, evaluation={"max_length": 32, "ledger": ledger})


def test_check_notes_a_text_that_is_too_short_for_an_embedder(tiny_bert: Path, tmp_path: Path):
    """Enough bytes for a decoder's blocks may be few pieces: of a language whose letters take three bytes above all."""
    texts = {
        "Chinese": "".join(chr(0x4E00 + i) for i in range(250)),  # 750 bytes
        "German": " ".join(f"Wort{i}" for i in range(480)),
        "long words": " ".join(f"Donaudampfschiff{i}" for i in range(48)),
        "lines": "ein Satz " * 200,  # all pieces are alike
    }
    paths = {name: tmp_path / f"{name}.txt" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text, encoding="utf-8")
    data = tiny.write_jsonl(tmp_path / "data")
    notes = [own for own in check_local_inputs(embedder_spec(tiny_bert, data, paths)).findings.notes if "ledger" in own]
    assert [own.partition(" of 48 words")[0] for own in notes] == [
        "ledger, Chinese: 2 pieces",
        "ledger, lines: 2 pieces",
        "ledger, long words: 1 piece",
    ]
    assert all(own.endswith("where an interval needs 10; give more text") for own in notes)
    decoder = write_decoder(tmp_path / "decoder")
    spec = decoder_spec(decoder, data, {"texts": {"German": str(paths["Chinese"])}})
    assert not [own for own in check_local_inputs(spec).findings.notes if "ledger" in own], "pieces are for embedders"
