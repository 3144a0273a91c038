"""Further evaluation sets: what is refused, whose columns are read, and what a job reports of them."""

import json
import shutil
from html import unescape
from pathlib import Path

import pytest
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from pruning_core.checks.request import check_local_inputs
from pruning_core.data.further import set_task
from pruning_core.errors import Several
from pruning_core.run.pipeline import run
from pruning_core.spec.data_places import data_places, with_data
from pruning_core.spec.evaluation import AlsoSpec
from pruning_core.spec.prune import PruneSpec
from tests import tiny
from tests.compared import spec_of
from tests.tasks import task_of, write_task_data, write_task_model


def spec_with(model, data, *also, **fields):
    return tiny.tiny_spec(model, data, evaluation={"also": list(also)}, **fields)


def write(path: Path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def reviews(count=40, **more):
    return [{"review": f"word{row} {'good' if row % 2 else 'bad'}", "stars": row % 2} | more for row in range(count)]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"name": "x"}, "give data, or a split of the task's own data"),
        ({"name": "x y", "data": "/d"}, "name"),
        ({"name": "x", "split": "test", "revision": "main"}, "revision is of data of its own"),
        (
            {"name": "x", "data": "/d", "type": "sentence-similarity"},
            "not answer sentence-similarity; it answers text-class",
        ),
        ({"name": "x", "data": "/d", "type": "regression"}, "does not answer regression"),
        ({"name": "x", "data": "/d", "metric": "spearman"}, "must be one of accuracy, f1, matthews"),
        ({"name": "x", "data": "/d", "columns": {"image": "i"}}, "reads text columns"),
    ],
)
def test_sets_that_the_model_does_not_answer_are_refused(own, said):
    with pytest.raises(ValidationError, match=said) as caught:
        spec_of("text-classification", "accuracy", evaluation={"also": [own]})
    assert caught.value.errors()[0]["loc"][:3] == ("evaluation", "also", 0) or caught.value.errors()[0]["loc"][2] == "0"


def test_two_sets_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="another set is called x"):
        spec_of("text-classification", "accuracy", evaluation={"also": [{"name": "x", "data": "/d"}] * 2})


@pytest.mark.parametrize(
    ("kind", "metric", "other", "then"),
    [
        ("feature-extraction", "cosine", "sentence-similarity", "spearman"),
        ("summarization", "rougeL", "translation", "bleu"),
        ("text-generation", "perplexity", None, "perplexity"),
    ],
)
def test_what_a_set_leaves_out_is_as_in_the_task(kind, metric, other, then):
    spec = spec_of(kind, metric, evaluation={"also": [{"name": "x", "data": "org/own@v1", "type": other, "split": "test"}]})
    task = spec.task.of_set(spec.evaluation.also[0])
    assert (task.type, task.metric, task.dataset, task.revision) == (other or kind, then, "org/own", "v1")
    assert bool(task.columns.inputs) == (other is None), "columns of another type are guessed"
    assert (task.train_split, task.validation_split) == ("test", "test")


def test_every_place_of_data_is_named_and_can_be_moved():
    also = [{"name": "x", "data": "/d"}, {"name": "y", "split": "test"}, {"name": "z", "data": "org/own"}]
    spec = spec_of("text-classification", "accuracy", evaluation={"also": also})
    assert [(own.param, own.reference) for own in data_places(spec)] == [
        ("task.dataset", "d"),
        ("evaluation.also.0.data", "/d"),
        ("evaluation.also.2.data", "org/own"),
    ]
    moved = with_data(spec, {"task.dataset": "/e", "evaluation.also.0.data": "/f"})
    assert [own.reference for own in data_places(moved)] == ["/e", "/f", "org/own"]
    assert PruneSpec.model_validate(moved.model_dump()) == moved


def test_columns_are_the_tasks_or_guessed_and_a_file_is_judged_whole(tmp_path: Path):
    task = spec_of("text-classification", "accuracy").task.but(columns={"text": ["sentence"], "label": "label"})
    other = write(tmp_path / "other.jsonl", reviews())
    found, said = set_task(task, AlsoSpec(name="x", data=other))
    assert (found.columns.text, found.columns.label, found.validation_split) == (("review",), "stars", "other.jsonl")
    assert "columns were guessed" in said[0]
    same = write(tmp_path / "same.jsonl", [{"sentence": "a", "label": 1, "review": "b", "stars": 1}])
    found, said = set_task(task, AlsoSpec(name="x", data=same))
    assert (found.columns.text, said) == (("sentence",), ())


def test_the_check_names_set_and_field_and_what_would_be_right(tiny_bert: Path, tiny_sst2: Path, tmp_path: Path):
    bad = write(tmp_path / "bad.jsonl", [{"sentence": "a", "label": 7}])
    spec = spec_with(
        tiny_bert,
        tiny_sst2,
        {"name": "gone", "data": str(tmp_path / "nowhere")},
        {"name": "classes", "data": bad},
        {"name": "splits", "split": "holdout"},
        {"name": "columns", "split": "train", "columns": {"text": ["sentense"], "label": "label"}},
    )
    with pytest.raises(Several) as caught:
        check_local_inputs(spec)
    found = {error.param: error.message for error in caught.value.errors}
    assert list(found) == [
        "evaluation.also.0.data",
        "evaluation.also.1.columns.label",
        "evaluation.also.2.split",
        "evaluation.also.3.columns",
    ]
    assert found["evaluation.also.1.columns.label"].startswith("evaluation set classes: label 7 is no class of the model")
    assert "Name the one to take in evaluation.also.2.split" in found["evaluation.also.2.split"]
    assert "task." not in " ".join(found.values())


def test_the_check_names_the_columns_that_the_job_will_read(tiny_bert: Path, tiny_sst2: Path, tmp_path: Path):
    spec = spec_with(tiny_bert, tiny_sst2, {"name": "reviews", "data": write(tmp_path / "r.jsonl", reviews())})
    checked = check_local_inputs(spec)
    assert checked.spec.evaluation.also[0].columns.text == ("review",)
    assert any(note.startswith("evaluation set reviews: columns were guessed") for note in checked.findings.notes)


@pytest.mark.usefixtures("proven_by_a_fork")
@pytest.mark.long
def test_a_job_judges_each_checkpoint_on_each_set(tiny_bert: Path, tiny_sst2: Path, tmp_path: Path) -> None:
    spec = spec_with(
        tiny_bert,
        tiny_sst2,
        {"name": "again", "split": "validation"},
        {"name": "reviews", "data": write(tmp_path / "reviews.jsonl", reviews()), "metric": "f1", "max_samples": 20},
        {"name": "one-row", "data": write(tmp_path / "one.jsonl", reviews(1))},
        {"name": "one_class", "data": write(tmp_path / "class.jsonl", reviews(30, stars=1)), "metric": "matthews"},
        target=None,
        targets=[{"metric": "macs", "keep": 0.5}, {"metric": "macs", "keep": 0.15}],
        recovery={"kind": "none"},
    )
    report = run(spec, tmp_path / "out", device="cpu")
    assert len(report.frontier) == 2
    for point in report.frontier:
        again, others, one, alike = point.also
        assert again.quality == point.quality, "the same rows by the same metric are the same figures, intervals included"
        assert (others.metric, others.samples) == ("f1", 20)
        assert others.quality is not None
        assert others.quality.difference is not None
        assert others.quality.changed is not None
        assert one.quality is not None
        assert (one.quality.difference, one.quality.no_interval) == (None, "1 row is too few, an interval needs 10")
        assert alike.quality is not None
        assert alike.quality.difference is None or alike.quality.difference.value == 0
    assert report.frontier[0].also != report.frontier[1].also
    assert report.also == report.frontier[0].also
    said = "evaluation set one_class: all validation rows that are judged are of one class"
    assert any(said in warning for warning in report.warnings)
    page, card = ((tmp_path / "out" / name).read_text() for name in ("report.html", "README.md"))
    for name in ("again", "reviews", "one-row", "one_class"):
        assert name in page
        assert name in card
    assert str(tmp_path) not in page + card


@pytest.mark.usefixtures("proven_by_a_fork")
@pytest.mark.parametrize(
    ("task_type", "family", "own", "metric"),
    [
        ("feature-extraction", "bert", "sentence-similarity", "spearman"),
        ("text-generation", "gpt2", None, "perplexity"),
    ],
)
@pytest.mark.long
def test_embedders_and_decoders_are_judged_on_other_texts(
    tmp_path: Path, task_type: str, family: str, own, metric: str
) -> None:
    source = write_task_model(tmp_path / "model", task_type, family)
    data = write_task_data(tmp_path / "data", task_type)
    other = write_task_data(tmp_path / "other", own or task_type)
    columns = task_of(own or task_type, other)["columns"]
    also = {"name": "other", "data": str(other), "type": own, "columns": columns, "max_samples": 40}
    spec = tiny.tiny_spec(source, data, task=task_of(task_type, data), evaluation={"also": [also]})
    report = run(spec.but(latency=spec.latency.but(repeats=3)), tmp_path / "out", device="cpu")
    (found,) = report.also
    assert (found.task, found.metric) == (own or task_type, metric)
    assert found.quality is not None, found.reason
    assert found.quality.difference is not None or found.quality.no_interval


@pytest.mark.usefixtures("proven_by_a_fork")
@pytest.mark.long
def test_outputs_that_are_not_finite_on_a_set_are_a_reason_and_the_rest_stands(
    tiny_bert: Path, tiny_sst2: Path, tmp_path: Path
) -> None:
    """One embedding is so large that its sums overflow. It is of a word that the task's data has not and the set has."""
    spoiled = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = load_file(spoiled / "model.safetensors")
    unknown = transformers.AutoTokenizer.from_pretrained(spoiled).unk_token_id
    weights["bert.embeddings.word_embeddings.weight"][unknown] = 3e38
    save_file(weights, spoiled / "model.safetensors", {"format": "pt"})
    rows = reviews()
    rows[7]["review"] += " unheard-of"
    sets = (
        {"name": "spoiled", "data": write(tmp_path / "spoiled.jsonl", rows)},
        {"name": "sound", "data": write(tmp_path / "sound.jsonl", reviews())},
    )
    report = run(spec_with(spoiled, tiny_sst2, *sets), tmp_path / "out", device="cpu")
    bad, good = report.also
    assert (bad.name, bad.quality) == ("spoiled", None)
    assert bad.reason is not None
    assert "logits of the dense model" in bad.reason
    assert "NaN or infinite" in bad.reason
    assert "evaluation set spoiled" in bad.reason, "which rows it is about"
    assert good.quality is not None, "other sets are judged all the same"
    assert report.quality.samples == 120, "the task is"
    alone = run(spec_with(spoiled, tiny_sst2, sets[1]), tmp_path / "alone", device="cpu")
    assert (report.quality, report.parameters, good) == (alone.quality, alone.parameters, alone.also[0])
    page, card = (unescape((tmp_path / "out" / name).read_text()) for name in ("report.html", "README.md"))
    assert bad.reason in page
    assert "spoiled" in card
