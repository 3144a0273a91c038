"""What does not fit a task is refused at submit where files tell, and by the job in the same words where only it sees it."""

from __future__ import annotations

import itertools
import json
import shutil
from array import array

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.artifacts.probes import make_probes, texts_of
from pruning_core.checks.model import mixture, stored_type
from pruning_core.checks.request import check_local_inputs
from pruning_core.checks.task import positions_of
from pruning_core.data.labels import with_classes
from pruning_core.data.read import read_rows
from pruning_core.errors import DatasetInvalid, ModelUnreadable, PruningError
from pruning_core.evidence.calibration import batched
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.labels import Answers
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks import answers
from pruning_core.tasks.answers import best_answer, next_window
from pruning_core.tasks.base import encoded_by
from pruning_core.tasks.lengths import parts_of
from tests import tasks, tiny

CPU = torch.device("cpu")


def spec_of(task_type, folder, model=None, data=None, **changes):
    model = model or tasks.write_task_model(folder / "model", task_type)
    data = data or tasks.write_task_data(folder / "data", task_type, rows=20)
    return tiny.tiny_spec(model, data, task=tasks.task_of(task_type, data, **changes))


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def lines(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("task_type", "other", "says"),
    [
        ("fill-mask", "question-answering", "BertForQuestionAnswering, whose head does not fit a fill-mask task"),
        ("token-classification", "fill-mask", "choose task.type fill-mask"),
        (
            "text-generation",
            "fill-mask",
            "'bert' cannot do text-generation: it sees every token of a text at once, .* can do .*fill-mask",
        ),
    ],
)
def test_another_tasks_head_is_refused_at_submit(task_type, other, says, tmp_path):
    model = tasks.write_task_model(tmp_path / "model", other)
    with pytest.raises(PruningError, match=says):
        check_local_inputs(spec_of(task_type, tmp_path, model=model))


@pytest.mark.parametrize(
    ("task_type", "row", "says"),
    [
        ("token-classification", {"words": "a text", "tags": [0]}, "holds text, and lists of words are needed"),
        (
            "token-classification",
            {"words": ["a"], "tags": 3},
            "column 'tags' holds numbers; .* needs lists",
        ),
        ("token-classification", {"tokens": ["a"], "tags": [0]}, "has no column 'words'; it has tags, tokens"),
        ("question-answering", {"question": "q", "context": "c", "answers": "c"}, "holds text; .* objects {text"),
        ("multi-label-classification", {"text": "a", "labels": 1}, "holds numbers; .* lists of class indices or names"),
        ("summarization", {"text": "a", "other": 1}, "column 'other' holds numbers; a summarization task needs text"),
        ("sentence-similarity", {"text": "a", "other": "b", "score": "high"}, "holds text; .* numbers"),
    ],
)
def test_columns_of_another_kind_are_refused_by_submit_and_by_the_job(task_type, row, says, tmp_path):
    spec = spec_of(task_type, tmp_path, data=lines(tmp_path / "data", row))
    with pytest.raises(DatasetInvalid, match=says):
        check_local_inputs(spec)
    if "words are needed" not in says:
        with pytest.raises(DatasetInvalid, match=says):
            read_rows(spec.task, "train")


@pytest.mark.parametrize(
    ("task_type", "row", "says"),
    [
        ("token-classification", {"words": ["a", "b"], "tags": [0]}, "row 0 has 2 words and 1 labels"),
        ("token-classification", {"words": ["a"], "tags": [9]}, "label 9 is no class of the model, which has 5"),
        ("token-classification", {"words": ["a"], "tags": ["B-Z"]}, "label 'B-Z' is no class of the model, which has O, B-X"),
        ("multi-label-classification", {"text": "a", "labels": ["ugly"]}, "label 'ugly' is no class .* good, bad, long"),
    ],
)
def test_labels_that_the_model_has_not(task_type, row, says, tmp_path):
    spec = spec_of(task_type, tmp_path, data=lines(tmp_path / "data", row))
    with pytest.raises(DatasetInvalid, match=says):
        run(spec, tmp_path / "out", device="cpu")


def test_names_and_indices_of_classes_mean_the_same(tmp_path):
    for tags in (["B-X", "O"], [1, 0]):
        data = lines(tmp_path / str(tags[0]), {"words": ["a", "b"], "tags": tags})
        spec = spec_of("token-classification", tmp_path, data=data)
        assert with_classes(spec.task, read_rows(spec.task, "train"), tasks.TAGS).labels == ((1, 0),)


def test_entities_need_names_of_entities(tmp_path):
    model = tasks.write_task_model(tmp_path / "model", "token-classification")
    rewrite(model, id2label={str(i): name for i, name in enumerate(("NOUN", "VERB", "ADJ", "DET", "X"))}, label2id={})
    with pytest.raises(DatasetInvalid, match=r"metric f1 counts entities.*NOUN, VERB"):
        check_local_inputs(spec_of("token-classification", tmp_path, model=model))
    check_local_inputs(spec_of("token-classification", tmp_path, model=model, metric="accuracy"))


def test_both_forms_of_answers_are_read(tmp_path):
    squad = {"question": "q", "context": "ab cd", "answers": {"text": ["cd"], "answer_start": [3]}}
    listed = squad | {"answers": [{"text": "cd", "answer_start": 3}]}
    for name, row in (("squad", squad), ("listed", listed)):
        spec = spec_of("question-answering", tmp_path, data=lines(tmp_path / name, row))
        assert read_rows(spec.task, "train").labels == (Answers(("cd",), (3,)),)


def test_answers_that_do_not_fit_are_refused(tmp_path):
    context = "word2 " + " ".join(["good"] * 60)
    row = {"question": "word1", "context": context, "answers": {"text": [context[6:]], "answer_start": [6]}}
    spec = spec_of("question-answering", tmp_path, data=lines(tmp_path / "data", row))
    with pytest.raises(DatasetInvalid, match=r"none of 1 answered .* lies whole within 32 tokens"):
        run(spec, tmp_path / "out", device="cpu")


@pytest.mark.long
def test_a_question_that_leaves_no_room_is_cut_and_counted(tmp_path):
    long = {"question": " ".join(["word1"] * 70), "context": "word2 good", "answers": {"text": ["good"], "answer_start": [6]}}
    short = long | {"question": "word3"}
    spec = spec_of("question-answering", tmp_path, data=lines(tmp_path / "data", long, short))
    model = load_task_model(tasks.Path(spec.model), "question-answering", CPU)
    encoded = model.family.encode(model, read_rows(spec.task, "train"), 32)
    assert encoded.cut_questions == 0.5
    assert [len(ids) for ids in encoded.columns["input_ids"]] == [14 + 3 + 2, 1 + 3 + 2]
    assert (encoded.owners, encoded.cut_off) == ([0, 1], 0)
    details = run(spec, tmp_path / "out", device="cpu").quality.details
    assert details["cut_questions"] == 0.5


def test_a_book_is_read_in_time_that_grows_with_its_length(tmp_path, monkeypatch):
    context = " ".join(["word1"] * 20_000)
    row = {"question": "word2", "context": context, "answers": {"text": ["word1"], "answer_start": [6]}}
    spec = spec_of("question-answering", tmp_path, data=lines(tmp_path / "data", row))
    model = load_task_model(tasks.Path(spec.model), "question-answering", CPU)
    given = []

    def counted(tokenizer, columns, *others, **options):
        given.append(sum(len(text) for column in columns for text in column))
        return encoded_by(tokenizer, columns, *others, **options)

    monkeypatch.setattr(answers, "encoded_by", counted)
    encoded = model.family.encode(model, read_rows(spec.task, "train"), 32)
    assert max(max(spans) for spans in encoded.spans) == len(context)
    assert sum(given) < 100 * 32 * len(encoded.owners), "not the whole rest of the book for every window"


def test_two_books_are_cut_before_they_are_paired(tiny_bert):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    first, second = (" ".join([word] * 100_000) for word in ("word1", "word2"))
    found = encoded_by(tokenizer, [[first, "word3"], [second, second]], 16)["input_ids"]
    short = [text[:200] for text in (first, second)]
    assert found == tokenizer([short[0], "word3"], [short[1], short[1]], truncation=True, max_length=16)["input_ids"]


def test_probes_of_books_are_the_same_texts_in_both_processes(tmp_path):
    long = {"question": "word1", "context": " ".join(["word2"] * 500), "answers": {"text": ["word2"], "answer_start": [0]}}
    spec = spec_of("question-answering", tmp_path, data=lines(tmp_path / "data", *[long] * 8))
    model = load_task_model(tasks.Path(spec.model), "question-answering", CPU)
    for probe in make_probes(read_rows(spec.task, "validation"), 32):
        given, limit = texts_of(model, probe), model.longest(probe.length)
        assert max(len(text) for row in given for text in row) <= limit * 64
        columns = [list(column) for column in zip(*given, strict=True)]
        assert parts_of(columns, limit) == columns, "nothing is cut once more"


@pytest.mark.long
def test_long_contexts_are_read_in_windows(tmp_path):
    context = " ".join(f"word{index % 60}" for index in range(100)) + " good bad"
    long = {"question": "word1", "context": context, "answers": {"text": ["good bad"], "answer_start": [context.index("good")]}}
    short = {"question": "word2", "context": "word3 good", "answers": {"text": ["good"], "answer_start": [6]}}
    spec = spec_of("question-answering", tmp_path, data=lines(tmp_path / "data", long, short))
    model = load_task_model(tasks.Path(spec.model), "question-answering", CPU)
    rows = read_rows(spec.task, "train")
    encoded = model.family.encode(model, rows, 32)
    assert encoded.owners == [0, 1, *[0] * (len(encoded.owners) - 2)]
    assert encoded.cut_off == 0
    windows = [spans for spans, row in zip(encoded.spans, encoded.owners, strict=True) if row == 0]
    read = [(min(start for start in spans[::2] if start >= 0), max(spans)) for spans in windows]
    assert read[0][0] == 0
    assert read[-1][1] == len(context)
    for (_, end), (start, _) in itertools.pairwise(read):
        assert context[start - 1] == " "
        assert 8 * 5 < end - start < 10 * 8, "nine words of 28 are in the next window, too"
    # Its place is found in the window that has it, and the others say that there is none.
    placed = [tuple(label) for label, row in zip(encoded.labels.tolist(), encoded.owners, strict=True) if row == 0]
    assert placed[:-1] == [(0, 0)] * (len(placed) - 1)
    first, last = placed[-1]
    assert context[windows[-1][2 * first] : windows[-1][2 * last + 1]] == "good bad"
    # The likeliest span of any window is the answer, unless in all of them none is likelier.
    logits = [torch.zeros(len(spans) // 2, 2) for spans in windows]
    logits[-1][first, 0] = logits[-1][last, 1] = 5.0
    assert best_answer(list(zip(logits, windows, strict=True)), context) == "good bad"
    for own in logits:
        own[0] = 6.0
    assert best_answer(list(zip(logits, windows, strict=True)), context) == ""
    assert run(spec, tmp_path / "out", device="cpu").quality.samples == 2


def test_contexts_without_spaces_are_read_in_windows_too():
    spans = array("l", [-1, -1, *(at for start in range(30) for at in (start, start + 1)), -1, -1])
    assert next_window(spans, "字" * 30) is None
    assert next_window(spans, "字" * 30 + " ") is None
    assert next_window(spans, "字" * 60) == 20
    same = array("l", [-1, -1, 4, 5, 4, 5])  # two tokens of one character
    assert next_window(same, "字" * 9) == 5


def test_a_tokenizer_without_a_mask_or_padding(tmp_path):
    model = tasks.write_task_model(tmp_path / "model", "fill-mask")
    tasks.write_plain_tokenizer(model, pad_token="[PAD]")
    with pytest.raises(DatasetInvalid, match=r"no mask token.*task.type text-generation"):
        run(spec_of("fill-mask", tmp_path, model=model), tmp_path / "out", device="cpu")
    tasks.write_plain_tokenizer(model)
    with pytest.raises(ModelUnreadable, match=r"no padding token.*tokenizer_config.json"):
        load_task_model(model, "fill-mask", CPU)
    assert load_task_model(
        tasks.write_task_model(tmp_path / "gpt2", "text-generation"), "text-generation", CPU
    ).tokenizer.pad_token


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 1}, "says 1 layers, and the weights have 2"),
        ({"vocab_size": 9000}, "a vocabulary of 9000, and .* has 67 rows"),
    ],
)
def test_a_config_of_another_model(change, says, tiny_bert, tiny_sst2, tmp_path):
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    rewrite(model, **change)
    with pytest.raises(ModelUnreadable, match=says):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


@pytest.mark.parametrize(
    ("kinds", "written"),
    [((torch.float16, torch.float32), "float16"), ((torch.bfloat16, torch.float16), "float32")],
)
@pytest.mark.long
def test_mixtures_of_types_are_written_in_one_that_holds_them_and_said(kinds, written, tiny_bert, tiny_sst2, tmp_path):
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    mixed = {name: own.to(kinds[own.ndim == 1]) for name, own in weights.items()}
    save_file(mixed, model / "model.safetensors", metadata={"format": "pt"})
    report = run(tiny.tiny_spec(model, tiny_sst2), tmp_path / "out", device="cpu")
    assert report.stored_dtype == written
    assert f"all are written in {written}" in report.warnings[0]


def test_what_types_are_called():
    assert stored_type({"F32": 5, "F16": 90, "I64": 1}) == "float16"
    assert stored_type({"I64": 1}) == "float32"
    assert mixture({"F32": 5, "I64": 1}) is None


def test_quantised_weights_are_refused(tiny_bert, tiny_sst2, tmp_path):
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = {name: own.to(torch.int8) for name, own in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnreadable, match=r"quantised \(I8\)"):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


def test_lengths_beyond_the_positions_are_refused_where_they_were_chosen(tiny_bert, tiny_sst2):
    check_local_inputs(tiny.tiny_spec(tiny_bert, tiny_sst2))  # evaluation.max_length is 128, as nobody chose otherwise
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2, evaluation={"max_length": 512})
    with pytest.raises(ModelUnreadable, match=r"evaluation.max_length 512 is more than the 66 positions"):
        check_local_inputs(spec)


def test_positions_as_each_family_counts_them():
    assert positions_of({"model_type": "bert", "max_position_embeddings": 512}) == 512
    assert positions_of({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}) == 512
    assert positions_of({"model_type": "gpt2", "n_positions": 1024}) == 1024
    assert positions_of({"model_type": "t5", "n_positions": 512}) is None


def test_images_from_folders_and_paths_within_the_data_set(tmp_path):
    import random

    rng, data = random.Random(0), tmp_path / "data"
    for split in ("train", "validation"):
        for label, name in enumerate(("dark", "light")):
            (data / split / name).mkdir(parents=True)
            for index in range(12):
                (data / split / name / f"{index}.png").write_bytes(tasks.picture(label, rng))
    model = tasks.write_task_model(tmp_path / "model", "image-classification")
    spec = spec_of("image-classification", tmp_path, model=model, data=data)
    check_local_inputs(spec)
    rows = with_classes(spec.task, read_rows(spec.task, "train"), ("dark", "light"))
    assert sorted(rows.labels) == [0] * 12 + [1] * 12
    listed = lines(tmp_path / "listed", {"image": "one.png", "label": 1})
    (listed / "one.png").write_bytes(tasks.picture(1, rng))
    again = spec_of("image-classification", tmp_path, model=model, data=listed)
    assert read_rows(again.task, "train").labels == (1.0,)
    (data / "train" / "blue").mkdir()
    (data / "train" / "blue" / "one.png").write_bytes(tasks.picture(1, rng))
    with pytest.raises(DatasetInvalid, match="label 'blue' is no class of the model, which has dark, light"):
        check_local_inputs(spec)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "one.txt"])
def test_paths_of_images_stay_in_the_data_sets_folder(path, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    model = tasks.write_task_model(tmp_path / "model", "image-classification")
    data = lines(tmp_path / "data", {"image": path, "label": 1})
    with pytest.raises(DatasetInvalid, match="must lie in the data set's folder"):
        read_rows(spec_of("image-classification", tmp_path, model=model, data=data).task, "train")


def test_a_file_that_is_no_image(tmp_path):
    data = lines(tmp_path / "data", {"image": "one.png", "label": 1})
    (data / "one.png").write_bytes(b"no image")
    spec = spec_of("image-classification", tmp_path, data=data)
    with pytest.raises(DatasetInvalid, match="no image that can be read"):
        run(spec, tmp_path / "out", device="cpu")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_that_was_cut_off_is_found_before_any_work(kind, tmp_path):
    import io

    from PIL import Image

    written = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(written, format=kind)
    data = lines(tmp_path / "data", {"image": "one.png", "label": 1})
    (data / "one.png").write_bytes(written.getvalue()[: len(written.getvalue()) // 2])
    spec = spec_of("image-classification", tmp_path, data=data)
    model = load_task_model(tasks.Path(spec.model), "image-classification", CPU)
    with pytest.raises(DatasetInvalid, match="a row is no image that can be read"):
        model.family.encode(model, with_classes(spec.task, read_rows(spec.task, "train"), model.classes), 32)


def test_pixels_of_an_evaluation_are_decoded_batch_by_batch(tmp_path):
    spec = spec_of("image-classification", tmp_path)
    model = load_task_model(tasks.Path(spec.model), "image-classification", CPU)
    encoded = model.family.encode(model, with_classes(spec.task, read_rows(spec.task, "train"), model.classes), 32)
    assert not encoded.kept
    now, later = (batched(encoded, batch_tokens=100, keep=keep).batches for keep in (True, False))
    assert len(now) == len(later) > 1
    assert later[1] is not later[1]
    for one, other in zip(now, later, strict=True):
        assert torch.equal(one.inputs["pixel_values"], other.inputs["pixel_values"])
        assert one.rows.tolist() == other.rows.tolist()
    assert [batch.rows.tolist() for batch in later[1:]] == [batch.rows.tolist() for batch in now[1:]]


def floored(task_type, tmp_path, floor):
    spec = spec_of(task_type, tmp_path)
    return PruneSpec.model_validate(spec.model_dump() | {"quality_floor": floor})


@pytest.mark.long
def test_floors_of_metrics_of_which_less_is_better(tmp_path):
    from pruning_core.errors import QualityFloorMissed

    report = run(floored("text-generation", tmp_path, 0.01), tmp_path / "out", device="cpu")
    floor = report.quality_floor
    assert floor.held
    assert floor.required == pytest.approx(report.quality.dense / 0.01)
    assert report.quality.kept == pytest.approx(report.quality.dense / report.quality.pruned)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "perplexity (less is better)" in page
    assert "of the quality kept, by perplexity" in page
    below = {"kind": "absolute", "value": report.quality.pruned * 0.9}
    with pytest.raises(QualityFloorMissed, match="the floor is perplexity at most"):
        run(floored("text-generation", tmp_path, below), tmp_path / "missed", device="cpu")


@pytest.mark.parametrize(("task_type", "value"), [("text-generation", 0.5), ("fill-mask", 1.5), ("translation", 101)])
def test_absolute_floors_stay_in_the_metrics_range(task_type, value, tmp_path):
    with pytest.raises(ValueError, match=r"an absolute quality_floor in .* must be between"):
        floored(task_type, tmp_path, {"kind": "absolute", "value": value})
