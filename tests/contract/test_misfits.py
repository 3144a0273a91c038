"""Models and data sets that do not fit, submitted: each a problem that says what is wrong and what would be right."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

from tests import tasks
from tests.contract.problems import assert_problem
from tests.families import ARCHITECTURES


def config(**changes):
    def change(model):
        path = model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def weights(change):
    """Change the tensors of a checkpoint in one file."""

    def edit(model):
        path = model / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return edit


def sharded(change):
    """Divide a checkpoint into two files, and change its index."""

    def edit(model):
        tensors = load_file(model / "model.safetensors")
        (model / "model.safetensors").unlink()
        names = sorted(tensors)
        parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
        for file, held in parts.items():
            save_file({name: tensors[name] for name in held}, model / file, metadata={"format": "pt"})
        index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
        change(model, index["weight_map"])
        (model / "model.safetensors.index.json").write_text(json.dumps(index))

    return edit


def cut_shard(model, _places):
    path = model / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


def names_of_classes(model):
    config(id2label={str(index): name for index, name in enumerate("abcde")}, label2id={})(model)


def drop(part):
    def change(tensors):
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return change


@pytest.mark.parametrize(
    ("name", "task_type", "damage", "code", "says"),
    [
        ("bert", "fill-mask", config(num_hidden_layers=3), "model_unreadable", "says 3 layers, and the weights have 2"),
        (
            "bart",
            "summarization",
            config(decoder_layers=6),
            "model_unreadable",
            "6 layers of its decoder, and the weights have 2",
        ),
        ("t5", "translation", weights(drop("block.1.layer.2")), "unsupported_architecture", "no block structure"),
        (
            "bert",
            "fill-mask",
            config(hidden_size=64),
            "model_unreadable",
            "a hidden size of 64, and the weights of layer 1 have 32",
        ),
        ("gpt2", "text-generation", config(n_inner=96), "model_unreadable", "96 neurons in each FFN, and the weights"),
        (
            "llama",
            "text-generation",
            config(num_key_value_heads=4),
            "model_unreadable",
            "4 keys and values, 8 wide each, but self_attn.k_proj",
        ),
        (
            "bert",
            "fill-mask",
            config(vocab_size=9),
            "model_unreadable",
            "a vocabulary of 9, and bert.embeddings.word_embeddings",
        ),
        (
            "bert",
            "fill-mask",
            config(max_position_embeddings=8),
            "model_unreadable",
            "positions of 8, and bert.embeddings.position",
        ),
        ("bert", "token-classification", names_of_classes, "dataset_invalid", "metric f1 counts entities"),
        ("bert", "regression", config(id2label={"0": "a", "1": "b"}), "dataset_invalid", "one output, this one has 2"),
        (
            "bert",
            "text-classification",
            config(num_labels=4, id2label=None),
            "model_unreadable",
            "says 4 classes, and classifier.w",
        ),
        (
            "bert",
            "text-classification",
            weights(drop("classifier")),
            "model_unreadable",
            "lacks weights that a text-classification",
        ),
        ("bert", "fill-mask", weights(drop("cls.")), "model_unreadable", "lacks weights that a fill-mask model needs"),
        (
            "bert",
            "question-answering",
            weights(drop("qa_outputs")),
            "model_unreadable",
            "(qa_outputs.weight or classifier.weight)",
        ),
        (
            "bert",
            "fill-mask",
            sharded(cut_shard),
            "model_unreadable",
            "model-00002-of-00002.safetensors is corrupt or truncated",
        ),
        (
            "bert",
            "fill-mask",
            sharded(lambda model, _places: (model / "model-00001-of-00002.safetensors").unlink()),
            "model_unreadable",
            "shards are missing: model-00001-of-00002.safetensors",
        ),
        (
            "bert",
            "fill-mask",
            sharded(lambda _model, places: places.update(x="../../model.safetensors")),
            "model_unreadable",
            "names '../../model.safetensors'; shards must lie in the model's folder",
        ),
        (
            "bert",
            "fill-mask",
            sharded(lambda _model, places: places.update(x="model-00001-of-00002.safetensors")),
            "model_unreadable",
            "names 1 tensors that its shards do not hold (x",
        ),
        (
            "gpt2",
            "text-classification",
            config(pad_token_id=None),
            "model_unreadable",
            "no pad_token_id, by which a decoder finds",
        ),
        (
            "gpt2",
            "feature-extraction",
            tasks.write_plain_tokenizer,
            "model_unreadable",
            "name one as pad_token in tokenizer_config",
        ),
        ("t5", "fill-mask", None, "unsupported_architecture", "'t5' cannot do fill-mask: there is no such head"),
        ("vit", "feature-extraction", None, "unsupported_architecture", "it reads images; it can do image-classification"),
        ("bert", "image-classification", None, "unsupported_architecture", "'bert' cannot do image-classification"),
    ],
)
def test_models_that_do_not_fit_are_refused_at_submit(api_on_sqlite, tmp_path, name, task_type, damage, code, says):
    model = ARCHITECTURES[name].write_for(task_type, tmp_path / "model")
    data = tasks.write_task_data(tmp_path / "rows", task_type, rows=4)
    if damage is not None:
        damage(model)
    body = {"model": str(model), "task": tasks.task_of(task_type, data), "sparsity": 0.5}
    problem = assert_problem(api_on_sqlite.client.post("/v1/jobs", json=body), 422, code)
    assert says in problem["detail"]
    assert str(tmp_path) not in json.dumps(problem)


def lines(**columns):
    """Write both splits of one row many times."""

    def write(data):
        for split in ("train", "validation"):
            (data / f"{split}.jsonl").write_text((json.dumps(columns, ensure_ascii=False) + "\n") * 4, encoding="utf-8")

    return write


def latin(data):
    for split in ("train", "validation"):
        (data / f"{split}.jsonl").unlink()
        (data / f"{split}.csv").write_bytes("text,label\nschön gut,1\n".encode("latin-1"))


def utf16(data):
    (data / "train.jsonl").write_text('{"text": "a", "label": 1}\n', encoding="utf-16")


def no_images(data):
    for split in ("train", "validation"):
        (data / f"{split}.parquet").unlink()
        for name in ("dark", "light"):
            (data / split / name).mkdir(parents=True)
            (data / split / name / "one.png").write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize(
    ("task_type", "damage", "says"),
    [
        ("text-classification", lines(satz="gut", klasse=1), "has no column 'text'; it has klasse, satz. Name the right ones"),
        ("text-classification", lines(文本="好", 标签=1), "has no column 'text'; it has 文本, 标签"),
        (
            "text-classification",
            lines(text="gut", label=7),
            "label 7 is no class of the model, which has 2: labels must be 0 to 1",
        ),
        ("text-classification", lines(text="gut", label=-2), "label -2 is no class"),
        ("text-classification", latin, "column 'text' of the train split is not written in UTF-8"),
        ("text-classification", utf16, "train.jsonl is not written in UTF-8"),
        (
            "token-classification",
            lines(words=["a"], tags=["I-ORG"]),
            "label 'I-ORG' is no class of the model, which has O, B-X",
        ),
        ("token-classification", lines(words=["a"], tags=[17]), "label 17 is no class of the model, which has 5"),
        ("multi-label-classification", lines(text="a", labels=["schlecht"]), "label 'schlecht' is no class of the model"),
        ("summarization", lines(text="a"), "has no column 'other'; it has text"),
        ("summarization", lines(text="a", other=3), "a summarization task needs text there"),
        ("image-classification", no_images, "train/dark/one.png is no image that can be read"),
    ],
)
def test_data_sets_that_do_not_fit_are_refused_at_submit(api_on_sqlite, tmp_path, task_type, damage, says):
    model = tasks.write_task_model(tmp_path / "model", task_type)
    data = tasks.write_task_data(tmp_path / "rows", task_type, rows=4)
    damage(data)
    body = {"model": str(model), "task": tasks.task_of(task_type, data), "sparsity": 0.5}
    problem = assert_problem(api_on_sqlite.client.post("/v1/jobs", json=body), 422, "dataset_invalid")
    assert says in problem["detail"]


def test_columns_in_any_script_can_be_named(api_on_sqlite, tiny_bert, tmp_path):
    data = tmp_path / "rows"
    data.mkdir()
    lines(文本="word1 good", 标签=1)(data)
    task = tasks.task_of("text-classification", data, columns={"text": ["文本"], "label": "标签"})
    response = api_on_sqlite.client.post("/v1/jobs", json={"model": str(tiny_bert), "task": task, "sparsity": 0.5})
    assert response.status_code == 202, response.text
    assert response.json()["spec"]["task"]["columns"] == {"text": ["文本"], "image": None, "label": "标签"}


def test_columns_that_are_left_out_are_guessed_said_and_stored(api_on_sqlite, tiny_sst2):
    api = api_on_sqlite
    body = {name: value for name, value in api.body.items() if name != "data"}
    body["task"] = {"type": "text-classification", "dataset": str(tiny_sst2), "metric": "accuracy"}
    plan = api.client.post("/v1/jobs", json=body | {"validate_only": True}).json()
    assert plan["spec"]["task"]["columns"] == {"text": ["sentence"], "image": None, "label": "label"}
    assert plan["found"]["rows"] == {"train": 240, "validation": 120}
    assert "text in 'sentence', labels in 'label'" in plan["found"]["notes"][0]
    assert plan["found"]["not_looked_at"] == []
    first, again = (api.client.put("/v1/jobs/guessed", json=body) for _ in range(2))
    assert first.status_code == again.status_code == 202
    assert first.json()["spec"]["task"]["columns"]["label"] == "label"
    body["task"]["columns"] = {"label": "idx"}
    problem = assert_problem(api.client.post("/v1/jobs", json=body), 422, "dataset_invalid")
    assert problem["errors"][0]["pointer"] == "/task/columns/label"
