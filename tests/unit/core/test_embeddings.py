"""Embeddings are those that users get from sentence-transformers, whatever its files say; and what cannot be so is refused."""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from pruning_core.checks.embedder import check_embedder, notes_on_embeddings
from pruning_core.checks.module_settings import MODULE_KEYS, TRANSFORMER_KEYS
from pruning_core.checks.recipe import ACTIVATIONS, POOLINGS, read_recipe
from pruning_core.data.rows import Rows
from pruning_core.errors import ModelUnreadable
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from tests import tiny

PLAIN = {"method": "forward", "method_output_name": "last_hidden_state"}
TEXTS = [
    *("good", "word1 bad word3 good word5 word6", "GOOD Word2", "word7 " * 40, "word3 word4", "bad " * 9),
    *(f"word{index} good word{index + 1}" for index in range(6)),
]
OLD = "word_embedding_dimension"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("plain"), "bert", task="features")


def _saved(plain, folder, *modules, **options):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    SentenceTransformer(modules=[Transformer(str(plain)), *modules], device="cpu", **options).save(str(folder))
    return folder


def _pooled(plain, folder, **settings):
    """A folder whose pooling's settings are written as they stand."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    _saved(plain, folder, Pooling(tiny.HIDDEN))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder


def _encode(folder, texts=TEXTS, *, unit=True):
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    return model.encode(list(texts), normalize_embeddings=unit)


def _ours(folder, texts=TEXTS, task="feature-extraction"):
    model = load_task_model(Path(folder), task, torch.device("cpu"))
    encoded = model.family.encode(model, Rows(tuple((text,) for text in texts), None), model.longest(512))
    with torch.inference_mode():
        parts = [model.outputs(encoded.batch(range(i, min(i + 5, len(texts)))).inputs) for i in range(0, len(texts), 5)]
    return torch.cat(parts).numpy()


NEW = {mode: {"embedding_dimension": tiny.HIDDEN, "pooling_mode": mode} for mode in POOLINGS.values()}
POOLED = {
    **NEW,
    "a list": {"embedding_dimension": tiny.HIDDEN, "pooling_mode": ["lasttoken", "mean"]},
    "old mean and max": {OLD: tiny.HIDDEN, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
    "old last": {OLD: tiny.HIDDEN, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True},
    "old, none": {OLD: tiny.HIDDEN, "pooling_mode_cls_token": False},
}


@pytest.mark.parametrize("kind", POOLED)
def test_every_pooling_is_the_one_that_users_get(kind, plain, tmp_path):
    folder = _pooled(plain, tmp_path / "model", **POOLED[kind])
    np.testing.assert_allclose(_ours(folder), _encode(folder), atol=1e-5)


def test_padding_on_the_left_changes_nothing(plain, tmp_path):
    folder = _pooled(plain, tmp_path / "model", **NEW["lasttoken"])
    right = _ours(folder)
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_args": {"padding_side": "left"}}))
    assert load_task_model(folder, "feature-extraction", torch.device("cpu")).tokenizer.padding_side == "left"
    np.testing.assert_allclose(_ours(folder), right, atol=1e-6)
    alone = np.concatenate([_encode(folder, [text]) for text in TEXTS])
    np.testing.assert_allclose(right, alone, atol=1e-5)


def test_layers_behind_the_pooling_prompts_and_lengths(plain, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize, Pooling

    torch.manual_seed(0)
    tail = (Pooling(tiny.HIDDEN, ("mean", "max"), include_prompt=False), Dense(2 * tiny.HIDDEN, 24, use_residual=True))
    others = (LayerNorm(24), Dropout(0.5), Normalize())
    prompts = {"prompts": {"query": "good word9 : ", "passage": "bad "}, "default_prompt_name": "query"}
    folder = _saved(plain, tmp_path / "model", *tail, *others, truncate_dim=16, **prompts)
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings | {"max_seq_length": 9, "do_lower_case": True}))
    ours = _ours(folder)
    assert ours.shape == (len(TEXTS), 16)
    np.testing.assert_allclose(ours, _encode(folder), atol=1e-5)
    assert not np.allclose(ours[2], _ours(folder, ["GOOD Word2 word60"])[0], atol=1e-3)
    np.testing.assert_allclose(ours[2], _ours(folder, ["good word2"])[0], atol=1e-6)
    check_embedder("feature-extraction", folder, tiny.HIDDEN)
    (said,) = notes_on_embeddings("feature-extraction", folder)
    assert "default prompt 'query' ('good word9 : ')" in said


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "manhattan"])
def test_pairs_are_compared_as_the_model_says(similarity, plain, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = _saved(plain, tmp_path / "model", Pooling(tiny.HIDDEN), similarity_fn_name=similarity)
    model = load_task_model(folder, "sentence-similarity", torch.device("cpu"))
    theirs = SentenceTransformer(str(folder), device="cpu")
    first, second = (torch.tensor(_encode(folder, own, unit=False)) for own in (TEXTS[:4], TEXTS[4:8]))
    np.testing.assert_allclose(_ours(folder, task="sentence-similarity")[:4], first, atol=1e-5)
    wanted = theirs.similarity_pairwise(first, second)
    np.testing.assert_allclose(model.embedder.similarities(first, second), wanted, atol=1e-5)
    assert similarity in notes_on_embeddings("sentence-similarity", folder)[-1]


def test_a_model_without_the_files_gives_the_mean_and_says_so(plain):
    (said,) = notes_on_embeddings("feature-extraction", plain)
    assert "no sentence-transformers files" in said
    assert "mean of the token states" in said
    assert notes_on_embeddings("text-classification", plain) == ()
    np.testing.assert_allclose(_ours(plain), _encode(plain), atol=1e-5)


def test_names_are_those_of_sentence_transformers():
    from sentence_transformers.sentence_transformer.modules import Pooling, pooling

    assert pooling._LEGACY_POOLING_MODE_KWARGS == POOLINGS
    assert list(POOLINGS.values()) == list(Pooling.POOLING_MODES)
    assert all(isinstance(getattr(torch.nn, name)(), torch.nn.Module) for name in ACTIVATIONS)


def test_entries_are_arguments_of_sentence_transformers():
    from sentence_transformers.sentence_transformer import modules

    arguments = set(inspect.signature(modules.Transformer.__init__).parameters) - {"self", "model_name_or_path"}
    assert arguments | {"model_args", "tokenizer_args", "config_args"} == TRANSFORMER_KEYS.keys()
    for kind, keys in MODULE_KEYS.items():
        assert set(inspect.signature(getattr(modules, kind).__init__).parameters) - {"self"} == keys


# What versions of sentence-transformers write, and what people add.
HARMLESS = {
    "nothing": {},
    "old": {"max_seq_length": 64, "do_lower_case": False},
    "null": {"max_seq_length": None, "do_lower_case": None, "unpad_inputs": None, "query_expansion": None},
    "arguments": {
        "model_args": {"attn_implementation": "eager", "torch_dtype": "float16"},
        "tokenizer_args": {"padding_side": "right"},
        "config_args": {"trust_remote_code": True},
    },
    "new": {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": PLAIN},
        "module_output_name": "token_embeddings",
        "processing_kwargs": {},
        "unpad_inputs": False,
    },
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_entries_that_are_taken_load_and_change_nothing(kind, plain, tmp_path):
    folder = _pooled(plain, tmp_path / "model", **NEW["mean"])
    (folder / "sentence_bert_config.json").write_text(json.dumps(HARMLESS[kind]))
    check_embedder("feature-extraction", folder, tiny.HIDDEN)
    np.testing.assert_allclose(_ours(folder), _encode(folder), atol=1e-5)


def _module(number, kind, *, path=None, package="sentence_transformers.models"):
    return {
        "idx": number,
        "name": str(number),
        "path": f"{number}_{kind}" if path is None else path,
        "type": f"{package}.{kind}",
    }


FIRST = [_module(0, "Transformer", path=""), _module(1, "Pooling")]
DENSE = {"in_features": tiny.HIDDEN, "out_features": 8, "bias": True}
# What is written where, and what the refusal says.
REFUSED = {
    "an LSTM": (
        {"modules.json": [FIRST[0], _module(1, "LSTM"), _module(2, "Pooling")]},
        "lists the module 'sentence_transformers.models.LSTM'",
    ),
    "weights of words": ({"modules.json": [*FIRST, _module(2, "WordWeights")]}, "WordWeights"),
    "another package": (
        {"modules.json": [*FIRST, _module(2, "Dense", package="sentence_transformers.util")]},
        "sentence_transformers.util.Dense",
    ),
    "no pooling": ({"modules.json": [FIRST[0], _module(1, "Normalize")]}, "a Transformer, a Pooling and what follows them"),
    "a model in a folder": ({"modules.json": [_module(0, "Transformer"), FIRST[1]]}, "in a folder of its own (0_Transformer)"),
    "a folder elsewhere": ({"modules.json": [FIRST[0], _module(1, "Pooling", path="../1_Pooling")]}, "folder of its Pooling"),
    "no list": ({"modules.json": {}}, "must list"),
    "an unknown pooling": ({"1_Pooling/config.json": {"pooling_mode": "median"}}, "pooling_mode 'median'"),
    "an unknown setting": ({"1_Pooling/config.json": {"pooling_mode_attention": True}}, "'pooling_mode_attention'"),
    "no width": ({"1_Pooling/config.json": {"pooling_mode": "mean"}}, "must have word_embedding_dimension"),
    "another width": ({"1_Pooling/config.json": {"embedding_dimension": 7}}, "says 7 values a token, and the model has 32"),
    "a Dense without weights": ({"modules.json": [*FIRST, _module(2, "Dense")], "2_Dense/config.json": DENSE}, "it is missing"),
    "a Dense of pickle": (
        {"modules.json": [*FIRST, _module(2, "Dense")], "2_Dense/config.json": DENSE, "2_Dense/pytorch_model.bin": ""},
        "as pickle (pytorch_model.bin), which is never read here",
    ),
    "a Dense of another width": (
        {"modules.json": [*FIRST, _module(2, "Dense")], "2_Dense/config.json": DENSE | {"in_features": 64}},
        "takes 64 values, and the module before it gives 32",
    ),
    "a function elsewhere": (
        {"modules.json": [*FIRST, _module(2, "Dense")], "2_Dense/config.json": DENSE | {"activation_function": "os.system"}},
        "activation_function 'os.system'",
    ),
    "a function of torch that is none": (
        {
            "modules.json": [*FIRST, _module(2, "Dense")],
            "2_Dense/config.json": DENSE | {"activation_function": "torch.hub.load"},
        },
        "activation_function 'torch.hub.load'",
    ),
    "states of tokens": (
        {
            "modules.json": [*FIRST, _module(2, "Dense")],
            "2_Dense/config.json": DENSE | {"module_input_name": "token_embeddings"},
        },
        "module_input_name 'token_embeddings'",
    ),
    "a prompt that is not there": (
        {"config_sentence_transformers.json": {"default_prompt_name": "q"}},
        "names the default prompt 'q'",
    ),
    "prompts that are no texts": (
        {"config_sentence_transformers.json": {"prompts": {"q": 1}}},
        "an object of texts as prompts",
    ),
    "another kind": (
        {"config_sentence_transformers.json": {"model_type": "SparseEncoder"}},
        "says that the model is a 'SparseEncoder'",
    ),
    "a chat": ({"sentence_bert_config.json": {"modality_config": {"message": {}}}}, "must be plain text by last_hidden_state"),
    "an argument": ({"sentence_bert_config.json": {"tokenizer_args": {"add_special_tokens": False}}}, "'add_special_tokens'"),
    "a length that is none": ({"sentence_bert_config.json": {"max_seq_length": "long"}}, "must be a whole number from 1"),
    "an entry of someone's": ({"sentence_bert_config.json": {"added_by_someone": 24}}, "has the entry 'added_by_someone'"),
    "the place of the model": ({"sentence_bert_config.json": {"model_name_or_path": "x"}}, "has the entry 'model_name"),
    "arguments that are none": ({"sentence_bert_config.json": {"model_args": None}}, "'None', and it must be an object"),
    "no modality": ({"sentence_bert_config.json": {"modality_config": None}}, "must be plain text by last_hidden_state"),
    "a modality alone": (
        {"sentence_bert_config.json": {"modality_config": {"text": PLAIN}}},
        "no module_output_name; set it to token_embeddings",
    ),
    "a word for a switch": ({"sentence_bert_config.json": {"do_lower_case": "yes"}}, "must be true or false"),
    "a length for queries": ({"sentence_bert_config.json": {"query_length": 3}}, "must be null"),
    "a tokenizer elsewhere": ({"sentence_bert_config.json": {"tokenizer_name_or_path": "org"}}, "lies beside the weights"),
    "a model's padding": ({"sentence_bert_config.json": {"model_args": {"padding_side": "left"}}}, "model_args 'padding_side'"),
    "a type for no model": ({"sentence_bert_config.json": {"model_args": {"dtype": "int8"}}}, "has the dtype 'int8'"),
    "pickle": ({"sentence_bert_config.json": {"model_args": {"use_safetensors": False}}}, "use_safetensors 'False'"),
    "lists for names": ({"modules.json": [FIRST[0] | {"name": ["0", "0"]}, FIRST[1]]}, "a name of its own"),
    "lists for types": ({"modules.json": [FIRST[0] | {"type": ["x", "x"]}, FIRST[1]]}, "lists the module"),
    "one name for two": ({"modules.json": [FIRST[0], FIRST[1] | {"name": "0"}]}, "a name of its own"),
    "a dot in a name": ({"modules.json": [FIRST[0], FIRST[1] | {"name": "1.0"}]}, "a text without dots"),
    "no path": (
        {"modules.json": [{k: v for k, v in FIRST[0].items() if k != "path"}, FIRST[1]]},
        "must give each module a path",
    ),
    "a setting of a layer norm": (
        {"modules.json": [*FIRST, _module(2, "LayerNorm")], "2_LayerNorm/config.json": {"dimension": tiny.HIDDEN, "eps": 1}},
        "does not know ('eps')",
    ),
    "a dropout that is none": (
        {"modules.json": [*FIRST, _module(2, "Dropout")], "2_Dropout/config.json": {"dropout": "x"}},
        "a number from 0 to 1",
    ),
    "a dropout without a folder": ({"modules.json": [*FIRST, _module(2, "Dropout", path="")]}, "folder of its Dropout"),
    "a number for a switch": ({"1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": 0}}, "it is true or false"),
    "no JSON": ({"sentence_bert_config.json": None}, "sentence_bert_config.json"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_another_function_is_refused_by_name(what, plain, tmp_path):
    files, says = REFUSED[what]
    folder = shutil.copytree(plain, tmp_path / "model")
    mean = {"pooling_mode": "mean", "embedding_dimension": tiny.HIDDEN}
    for name, value in ({"modules.json": FIRST, "1_Pooling/config.json": mean} | files).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{" if value is None else json.dumps(value))
    with pytest.raises(ModelUnreadable) as refused:
        check_embedder("feature-extraction", folder, tiny.HIDDEN)
    assert says in str(refused.value)
    assert refused.value.param == "model"
    assert str(tmp_path) not in str(refused.value)
    check_embedder("text-classification", folder, tiny.HIDDEN)


def test_prompts_that_are_not_the_default_are_told(plain, tmp_path):
    folder = _pooled(plain, tmp_path / "model", **NEW["mean"])
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "query: ", "document": ""}}))
    (said,) = notes_on_embeddings("feature-extraction", folder)
    assert "prompts ('query'), none of them by default" in said
    assert read_recipe(folder).prompt == ""


@pytest.mark.parametrize(("layout", "weights"), [("per_layer", "resident"), ("stock", "paged")])
@pytest.mark.long
def test_a_bundle_gives_its_users_what_the_report_says(layout, weights, plain, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    torch.manual_seed(0)
    pooling = Pooling(tiny.HIDDEN, ("lasttoken", "mean"), include_prompt=False)
    prompts = {"prompts": {"query": "good word9 "}, "default_prompt_name": "query"}
    source = _saved(plain, tmp_path / "model", pooling, Dense(2 * tiny.HIDDEN, 24), **prompts)
    data = tiny.write_jsonl(tmp_path / "data")
    task = {"type": "feature-extraction", "dataset": str(data), "columns": {"text": ["text"]}, "metric": "cosine"}
    graph = [] if weights == "paged" else ["onnx"]
    options = {"artifacts": {"layout": layout, "formats": ["safetensors", *graph]}, "memory": {"weights": weights}}
    report = run(tiny.tiny_spec(source, data, task=task, **options), tmp_path / "out", device="cpu")
    rows = [json.loads(line)["text"] for line in (data / "validation.jsonl").read_text().splitlines()][: report.quality.samples]
    cosine = float((_encode(source, rows) * _encode(tmp_path / "out", rows)).sum(-1).mean())
    assert report.quality.pruned == pytest.approx(cosine, abs=1e-5)
    assert report.quality.pruned < 0.9999
    assert {"encode", "tokens", "labels"} <= set(report.acceptance.checks)
    assert report.acceptance.libraries["sentence_transformers"]
    assert report.memory.weights == weights
    assert not graph or report.onnx.status == "ok", report.onnx.reason
    assert any("default prompt 'query'" in said for said in report.warnings)
